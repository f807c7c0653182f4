"""A step of a recipe: skipped, run again, made anew, refused; and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import ROOT
from kills import children

from fairseq_diffusion.tasks.data import REMEMBERED

STEP, LOCK = ROOT / "scripts/step.py", ROOT / "scripts/lock.py"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text("a\n")
    return tmp_path


def words(name: str, command: str, *more: str, inputs: str = "in", outputs: str = "out") -> list[str]:
    files = ["--inputs", *inputs.split(), "--outputs", *outputs.split()]
    return [sys.executable, str(STEP), name, *files, "--command", command, *more]


def step(*args: str, code: int = 0, **files: str) -> str:
    """Run a step; what it says."""
    done = subprocess.run(words(*args, **files), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


COPY = "cat in >>out; echo ran >>count"


def runs() -> int:
    return len(Path("count").read_text().split())


def test_a_complete_step_is_skipped_and_its_log_has_its_command():
    assert "copy: begins\ncopy: done in" in step("copy", COPY)
    assert step("copy", COPY) == "copy: complete\n"
    assert runs() == 1
    assert f"$ {COPY}\n" in Path("logs/copy.log").read_text()
    record = json.loads(Path("steps/copy.json").read_text())
    assert record["state"] == "complete" and record["inputs"].keys() == {"in"} and record["outputs"].keys() == {"out"}


@pytest.mark.parametrize(("harm", "said"), [(Path.unlink, "missing"), (lambda p: p.write_text("?"), "changed")])
def test_an_output_that_is_missing_or_damaged_is_made_anew_and_the_rest_kept(harm, said):
    command = "mkdir folder; cat in >folder/one; cp in folder/two"
    step("copy", command, outputs="folder")
    harm(Path("folder/one"))
    assert f"made again, because folder/one {'is missing' if said == 'missing' else said}" in step(
        "copy", command, outputs="folder"
    )
    assert Path("folder/one").read_text() == "a\n"
    assert Path("replaced/copy-1/folder/two").read_text() == "a\n"
    assert all(Path(folder, "logs/copy.log").read_text().count("===") == 1 for folder in (".", "replaced/copy-1"))


def test_what_a_training_notes_in_its_data_is_no_change():
    step("data", "mkdir data; cp in data/one", outputs="data")
    command = f"cp data/one out; echo {{}} >data/{REMEMBERED}"
    step("train", command, inputs="data")
    assert Path("data", REMEMBERED).exists()
    assert step("train", command, inputs="data") == "train: complete\n"


def test_what_a_user_adds_to_an_output_is_no_damage():
    step("copy", "mkdir folder; cat in >folder/one", outputs="folder")
    Path("folder/notes").write_text("mine")
    assert "complete" in step("copy", "mkdir folder; cat in >folder/one", outputs="folder")


def test_another_command_or_input_is_refused_and_redone_when_asked():
    step("copy", "sort -u in --output out")
    said = step("copy", "sort -r in --output out", code=2)
    assert "copy was made by another command: it had -u, now it has -r" in said and "--redo copy" in said
    Path("in").write_text("b\n")
    assert "copy was made from other files: in changed" in step("copy", "sort -u in --output out", code=2)
    assert Path("out").read_text() == "a\n"
    assert "made again, as requested" in step("copy", "sort -u in --output out", "--redo")
    assert Path("out").read_text() == "b\n" and Path("replaced/copy-1/out").read_text() == "a\n"
    step("copy", "sort -u in --output out", "--redo")
    assert Path("replaced/copy-2/out").read_text() == "b\n"


def test_steps_behind_one_that_was_made_anew_follow():
    follow = ("follow", "cat out >end"), {"inputs": "out", "outputs": "end"}
    step("copy", "cat in >out")
    step(*follow[0], **follow[1])
    Path("in").write_text("b\n")
    step("copy", "cat in >out", "--redo")
    assert "made again, because out changed" in step(*follow[0], **follow[1])
    assert Path("end").read_text() == "b\n" and Path("replaced/follow-1/end").read_text() == "a\n"


def test_steps_behind_one_that_came_out_the_same_are_complete_and_then_guarded_again():
    step("copy", "cat in >out")
    step("follow", "cat out >end", inputs="out", outputs="end")
    step("copy", "cat in >out", "--redo")
    assert "complete" in step("follow", "cat out >end", inputs="out", outputs="end")
    Path("out").write_text("by hand")
    assert "made from other files" in step("follow", "cat out >end", code=2, inputs="out", outputs="end")


def test_another_way_to_do_the_same_is_no_change():
    step("train", "cat in >out", "--identity", "train")
    assert "complete" in step("train", "cat <in >out", "--identity", "train")


def test_what_is_quickly_made_follows_every_change():
    step("table", "cat in >out", "--remake")
    assert "because its command changed" in step("table", "cat <in >out", "--remake")
    Path("in").write_text("b\n")
    assert "because in changed" in step("table", "cat <in >out", "--remake")
    assert Path("replaced/table-2/out").read_text() == "a\n"


def test_files_that_no_step_made_are_left_alone():
    Path("out").write_text("precious")
    assert "would write out, which is there already" in step("copy", "cat in >out", code=2)
    assert Path("out").read_text() == "precious"


def test_a_failure_shows_the_end_of_the_log_and_is_tried_again():
    said = step("copy", "echo broken pieces; false; touch out", code=1)
    assert "broken pieces" in said and "failed with status 1" in said and "logs/copy.log" in said
    assert "ended without an error, but out is not there" in step("copy", "true", code=1)
    assert "starts again" in step("copy", "cat in >out")
    assert Path("logs/copy.log").read_text().count("===") == 3


@pytest.mark.parametrize("harm", [lambda text: "", lambda text: text[:40], lambda text: text.replace("in", "on", 1)])
def test_a_damaged_record_is_no_reason_to_skip(harm):
    step("copy", COPY)
    record = Path("steps/copy.json")
    record.write_text(harm(record.read_text()))
    assert "steps/copy.json, the record of copy, is damaged" in step("copy", COPY, code=2)
    assert runs() == 1
    step("copy", COPY, "--redo")
    assert step("copy", COPY) == "copy: complete\n" and runs() == 2


def test_a_record_of_an_earlier_version_has_no_checksum():
    step("copy", COPY)
    record = json.loads(Path("steps/copy.json").read_text())
    del record["checksum"]
    Path("steps/copy.json").write_text(json.dumps(record))
    assert step("copy", COPY) == "copy: complete\n"
    Path("steps/copy.json").write_text(json.dumps({**record, "outputs": {}}))
    assert "made again, because out is not in its record" in step("copy", COPY)


def test_an_input_that_is_not_there_is_named():
    assert "copy needs nowhere, which is not there" in step("copy", "true", code=2, inputs="nowhere in")


def test_files_of_the_user_keep_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATA", str(tmp_path / "their data"))
    (tmp_path / "their data").mkdir()
    (tmp_path / "their data/text").write_text("a\n")
    step("copy", 'cat "$DATA/text" >out', inputs="$DATA/text")
    assert str(tmp_path) not in Path("steps/copy.json").read_text()


# -- kills -------------------------------------------------------------------------------------------------------------

SLOW = "echo part >>out; sleep 30; echo end >>out"


def test_behind_the_deadline_a_step_is_interrupted_and_none_begins(monkeypatch):
    """The same command then goes on; what is complete is still found."""
    monkeypatch.setenv("DEADLINE", str(time.time() + 3))
    assert "the time is over; copy continues next time" in step("copy", SLOW, "--continues", code=75)
    assert Path("out").read_text() == "part\n"
    assert "the time is over; other is next" in step("other", "cp in other", outputs="other", code=75)
    assert not Path("steps/other.json").exists()
    monkeypatch.delenv("DEADLINE")
    assert "was interrupted, continues" in step("copy", "echo end >>out", "--continues", "--identity", SLOW)
    monkeypatch.setenv("DEADLINE", "0")
    assert "complete" in step("copy", "echo end >>out", "--continues", "--identity", SLOW)


def test_a_command_with_more_to_do_says_so():
    assert "the time is over; copy continues next time" in step("copy", "cp in out; exit 75", code=75)
    assert json.loads(Path("steps/copy.json").read_text())["state"] == "begun"


@pytest.mark.parametrize(("folder", "deadline", "hours"), [(".", None, "inf"), (".", 3600, "1.4"), ("no", 3600, "0.9")])
def test_how_long_a_training_may_go_on(folder, deadline, hours, monkeypatch, capsys):
    """It has taken half an hour already, or nothing; a tenth of what is left of the call is spared for the end."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import training_time

    state = {"optimizer_history": [{"num_updates": 7}], "extra_state": {"previous_training_time": 1800.0}, "model": {}}
    torch.save(state, "checkpoint_last.pt")
    if deadline:
        monkeypatch.setenv("DEADLINE", str(time.time() + deadline))

    def status(*more: str) -> int:
        monkeypatch.setattr(sys, "argv", ["", folder, *more])
        return training_time.main()

    assert status() == 0
    assert float(capsys.readouterr().out) == pytest.approx(float(hours), abs=0.01)
    complete = [0, 75] if folder == "." else [75, 75]
    assert [status("--max-update", str(updates)) for updates in (7, 8)] == complete


def killed(*args: str) -> None:
    """A step and its command, killed in the middle."""
    process = subprocess.Popen(words(*args), stdout=subprocess.DEVNULL)
    wait_for(lambda: Path("out").exists() and Path("out").read_text())
    (shell,) = children(process.pid)
    process.kill()
    os.killpg(shell, signal.SIGKILL)
    process.wait()


def wait_for(what) -> None:
    for _ in range(500):
        if what():
            return
        time.sleep(0.02)
    raise AssertionError("never came")


def test_a_killed_step_begins_anew_and_keeps_what_there_was():
    killed("copy", SLOW)
    assert "was interrupted, starts again" in step("copy", SLOW.replace("30", "0"))
    assert Path("out").read_text() == "part\nend\n" and Path("replaced/copy-1/out").read_text() == "part\n"


def test_a_killed_training_goes_on_also_in_another_way():
    killed("train", SLOW, "--continues", "--identity", "lr 1")
    said = step("train", SLOW.replace("30", "0"), "--continues", "--identity", "lr 1")
    assert "was interrupted, continues in another way" in said
    assert Path("out").read_text() == "part\npart\nend\n"


def test_a_killed_training_does_not_go_on_with_other_settings():
    killed("train", SLOW, "--continues", "--identity", "lr 1")
    said = step("train", SLOW, "--continues", "--identity", "lr 2", code=2)
    assert "train was made by another command: it had 1, now it has 2" in said
    assert Path("out").read_text() == "part\n"


def test_a_killed_training_does_not_go_on_with_other_data():
    killed("train", SLOW, "--continues")
    Path("in").write_text("b\n")
    assert "was made from other files: in changed" in step("train", SLOW, "--continues", code=2)
    assert "made again, as requested" in step("train", SLOW.replace("30", "0"), "--continues", "--redo")
    assert Path("out").read_text() == "part\nend\n" and Path("replaced/train-1/out").read_text() == "part\n"


def test_a_step_killed_behind_its_command_is_not_run_again():
    step("copy", COPY)
    record = json.loads(Path("steps/copy.json").read_text())
    del record["outputs"], record["checksum"]
    Path("steps/copy.json").write_text(json.dumps({**record, "state": "ended"}))
    assert "had ended, complete" in step("copy", COPY)
    assert step("copy", COPY) == "copy: complete\n" and runs() == 1


def test_a_kill_between_moving_outputs_away_and_a_new_record_leaves_a_step_to_be_made():
    command = "cat in >out; cat in >more"
    step("copy", command, outputs="out more")
    Path("replaced/copy-1").mkdir(parents=True)
    Path("out").rename("replaced/copy-1/out")
    assert "because out is missing" in step("copy", command, outputs="out more")
    assert Path("replaced/copy-2/more").exists()


def in_group(group: int) -> bool:
    """Whether a process group has members that live: one whose parent died first may wait long for its burial."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, _, its_group, *_ = path.read_text().rpartition(")")[2].split()
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def test_a_signal_to_stop_reaches_the_command():
    process = subprocess.Popen(words("copy", SLOW), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: Path("out").exists())
    (shell,) = children(process.pid)
    process.terminate()
    assert "was stopped by signal 15" in process.communicate()[1] and process.returncode == 1
    wait_for(lambda: not in_group(shell))


def test_one_recipe_at_a_time_also_when_only_a_left_command_is_at_work():
    recipe = (
        f'exec 9>>.lock; {sys.executable} {LOCK} 9 && {sys.executable} {STEP} copy --outputs out --command "{SLOW}"'
    )
    first = subprocess.Popen(["bash", "-c", recipe], stdout=subprocess.DEVNULL)
    wait_for(lambda: Path("out").exists())
    (step_process,) = children(first.pid)
    (shell,) = children(step_process)
    first.kill()
    os.kill(step_process, signal.SIGKILL)
    second = subprocess.run(["bash", "-c", recipe], capture_output=True, text=True, check=False)
    assert second.returncode == 2 and "still works in" in second.stderr and f"process {shell}: " in second.stderr
    os.killpg(shell, signal.SIGKILL)
    wait_for(lambda: subprocess.run(["bash", "-c", recipe.split("&&")[0]], capture_output=True).returncode == 0)

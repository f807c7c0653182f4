"""fairseq's generate is wrapped once, under either name, and only within a run are its tasks watched."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

from fairseq_diffusion import compat
from fairseq_diffusion.compat.generation import is_generate


def stand_in(file: str) -> SimpleNamespace:
    return SimpleNamespace(__file__=file, _main=lambda cfg, output_file: (cfg, output_file))


def test_generate_is_wrapped_once(monkeypatch):
    generate = importlib.import_module("fairseq_cli.generate")
    monkeypatch.setattr(generate, "_main", lambda cfg, output_file: "generated")
    monkeypatch.setattr(generate, "open", open, raising=False)
    for name in ("first", "second"):
        compat.around_generation(lambda main, cfg, file, name=name: f"{name} {main(cfg, file)}", open)
    assert generate._main("cfg", "file") == "first generated"


def test_a_main_that_is_generate_is_wrapped_and_another_is_not(monkeypatch):
    called = []
    ours, other = stand_in("/somewhere/fairseq_cli/generate.py"), stand_in("/somewhere/fairseq_cli/train.py")
    for module in (ours, other):
        monkeypatch.setitem(sys.modules, "__main__", module)
        compat.around_generation(lambda main, cfg, file: called.append(main(cfg, file)), print)
        module._main("cfg", "file")
    assert called == [("cfg", "file")]
    assert ours.open is print and not hasattr(other, "open")


def test_a_main_without_a_file_is_not_generate():
    assert not is_generate(SimpleNamespace(_main=None)) and not is_generate(None)


def test_tasks_are_seen_within_only(monkeypatch):
    from fairseq import tasks

    monkeypatch.setattr(tasks, "setup_task", setup := lambda cfg, **kwargs: f"task {cfg}")
    seen = []
    with compat.watched_tasks(seen.append):
        assert tasks.setup_task(1) == "task 1"
    tasks.setup_task(2)
    assert seen == ["task 1"] and tasks.setup_task is setup

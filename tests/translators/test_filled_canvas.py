"""A diffusion translator whose targets are filled up with </s>, of words and of vectors."""

import pytest
import torch
from gaussians import BOS, EOS, PAD, WORDS, build, encode, sources
from token_batches import TOKENS

from fairseq_diffusion.alignment.template import Template
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import noise
from fairseq_diffusion.samplers.early_exit import EarlyExit
from fairseq_diffusion.translators.batch import Draft, Lengths
from fairseq_diffusion.translators.diffusion_options import DiffusionOptions

CANVAS = {"length_target": "canvas", "canvas_positions": 9}
OF_WORDS = {**TOKENS, "objective": "corrupted,anchor"}
TARGET = torch.tensor([[BOS, 5, 9, 6, 7, EOS], [BOS, 4, 6, EOS, PAD, PAD], [BOS, 8, 8, 8, EOS, PAD]])
WHOLE = torch.tensor([BOS, 4, 5, 6, 7, 8, 9, 4, EOS])  # a translation that fills its canvas
FILLED = torch.tensor([[BOS, 5, 9, 6, 7], [BOS, 4, 6, EOS, EOS], [BOS, 8, 8, 8, EOS]])
FILLED = torch.nn.functional.pad(FILLED, (0, 4), value=EOS)
SOURCE, KEYS = sources((5, 7, 4)), noise.fold(torch.arange(3), 11)


def losses_of(translator, target):
    with_bos = torch.nn.functional.pad(SOURCE, (1, 0), value=BOS)
    return translator.losses(with_bos, with_bos.ne(PAD), target, target.ne(PAD), KEYS, 0)


@pytest.mark.parametrize(
    "flags", [OF_WORDS, {**OF_WORDS, "mask_share": 0.0}, {}], ids=["hidden", "replaced", "vectors"]
)
def test_the_loss_is_that_of_a_target_with_ends_of_sentence_behind(flags):
    canvas, plain = build(**flags, **CANVAS), build(**flags)
    plain.load_state_dict(canvas.state_dict(), strict=False)
    ours, theirs = losses_of(canvas, TARGET), losses_of(plain, FILLED)
    assert "length" not in ours.terms and "length" in theirs.terms
    for name, share in ours.terms.items():
        torch.testing.assert_close(share, theirs.terms[name])
    assert torch.equal(torch.as_tensor(ours.sample_size), torch.as_tensor(theirs.sample_size))


def test_half_a_length_is_learnt_of_targets_as_they_are():
    half, plain = build(**OF_WORDS, length_target="half"), build(**OF_WORDS, length_target="absolute")
    plain.load_state_dict(half.state_dict())
    even = torch.tensor([[BOS, 5, 9, 6, 7, EOS], [BOS, 4, 6, EOS, PAD, PAD], [BOS, 8, 8, 8, EOS, EOS]])
    ours, theirs = losses_of(half, TARGET), losses_of(plain, even)
    torch.testing.assert_close(ours.terms["corrupted"], theirs.terms["corrupted"])
    source = encode(half, SOURCE)
    logits = half.length(source.states, source.mask).log_softmax(-1)
    nll = -logits[torch.arange(3), torch.tensor([3, 2, 3])]
    torch.testing.assert_close(half.length_nll(source, TARGET != PAD).float(), nll)


@pytest.mark.parametrize(
    "flags, sampler",
    [
        (OF_WORDS, "ancestral"),
        (OF_WORDS, "confidence"),
        ({**OF_WORDS, "mask_share": 0.0}, "routing"),
        ({**OF_WORDS, "mask_share": 0.0}, "resample"),
        ({"self_conditioning": "none"}, "ddim"),
    ],
)
@pytest.mark.parametrize("steps", [1, 4])
def test_what_stands_behind_the_first_end_is_cut(flags, sampler, steps, monkeypatch):
    """An oracle's estimate has junk there; scores are of words and the first end."""
    translator = build(**flags, **CANVAS)
    wanted = FILLED.clone()
    wanted[0], wanted[0, 8] = WHOLE, 8 if flags.get("state") else EOS  # words are certain of the last </s>, vectors not
    wanted[1, 5:8], wanted[2, 6] = torch.tensor([7, 7, 7]), 9
    with torch.no_grad():
        if not flags.get("state"):
            translator.state.weight.normal_(generator=torch.Generator().manual_seed(3))
        else:  # words of as many directions
            translator.state.weight.copy_(40 * torch.eye(16)[torch.arange(len(translator.state.weight)) % 16])
            translator.state.weight[16:] = -1.0
        x = translator.state.embed(wanted)
    monkeypatch.setattr(translator, "denoise", lambda *args: x)
    decoder = translator.decoder_for(DiffusionOptions(steps=steps, sampler=sampler))
    source = encode(translator, SOURCE)
    lengths = translator.lengths(source, 1, "top_k")
    assert lengths.positions.tolist() == [[9]] * 3 and not lengths.predicted
    found = decoder(source, lengths._replace(width=9), noise.fold(torch.arange(3)[:, None, None], 1))
    assert [row[:size].tolist() for row, size in zip(found.tokens[:, 0], found.sizes[:, 0])] == [
        [4, 5, 6, 7, 8, 9, 4],
        [4, 6],
        [8, 8, 8],
    ]
    log_p = -translator.state.nll(x, wanted).detach()
    if flags.get("state"):
        log_p[0, 8] = 0
    for i, size in enumerate((7, 2, 3)):
        assert float(found.scores[i, 0]) == pytest.approx(float(log_p[i, 1 : size + 2].mean()), abs=1e-4)


@pytest.mark.parametrize("flags", [OF_WORDS, {"objective": "mse=1,rounding=1"}], ids=["words", "vectors"])
def test_a_likelihood_is_that_of_the_filled_target(flags):
    canvas, plain = build(**flags, **CANVAS), build(**flags)
    plain.load_state_dict(canvas.state_dict(), strict=False)
    source = encode(canvas, SOURCE)
    ours = canvas.likelihood(source, TARGET, TARGET != PAD, KEYS, 3, 6)
    theirs = plain.likelihood(source, FILLED, FILLED != PAD, KEYS, 3, 6)
    given = plain.length_nll(source, FILLED != PAD)
    torch.testing.assert_close(ours.nats, theirs.nats - given)
    longer = torch.nn.functional.pad(FILLED[:, :-1], (0, 2), value=5)
    assert torch.isinf(canvas.likelihood(source, longer, longer != PAD, KEYS, 3, 6).nats).all()


def test_a_draft_is_filled_too(monkeypatch):
    translator = build(**OF_WORDS, **CANVAS)
    source = encode(translator, SOURCE)
    tokens, mask = translator.filled(source, TARGET, TARGET != PAD)
    assert torch.equal(tokens, FILLED) and mask.all()
    seen, denoise = [], translator.denoise
    monkeypatch.setattr(translator, "denoise", lambda *args: seen.append(args[0]) or denoise(*args))
    decoder = translator.decoder_for(DiffusionOptions(steps=2, sampler="ancestral", draft=0.3))
    lengths = Lengths(mask.sum(-1, keepdim=True), torch.zeros(3, 1), 9, draft=Draft(tokens, torch.zeros(3, 9)))
    decoder(source, lengths, noise.fold(torch.arange(3)[:, None, None], 1))
    shown = seen[0] != WORDS
    assert torch.equal(seen[0][shown], FILLED[shown]) and shown[:, 5:8].any()


@pytest.mark.parametrize(
    "flags, said",
    [
        ({"length_target": "canvas", "canvas_positions": 0}, "--canvas-positions is 0 and --canvas-scale 0.0"),
        (
            {"length_target": "canvas", "canvas_positions": 41},
            "--canvas-positions is 41, but --max-target-positions 40",
        ),
        ({**CANVAS, "canvas_scale": -1.0}, "--canvas-scale -1.0; pass numbers of 0"),
        ({**CANVAS, "length_training": "only"}, "canvas predicts no length"),
        ({**CANVAS, "freeze": "length"}, "canvas predicts no length"),
        ({"canvas_positions": 9}, "--canvas-positions 9 has no meaning with --length-target difference"),
        ({"canvas_scale": 2.0, "length_target": "half"}, "--canvas-scale 2.0 has no meaning with --length-target half"),
    ],
)
def test_what_has_no_meaning_is_refused(flags, said):
    with pytest.raises(UserError, match=said):
        build(**flags)


@pytest.mark.parametrize("options", [{"length_beam": 2}, {"oracle_length": True}])
def test_a_canvas_has_one_size(options):
    with pytest.raises(UserError, match="this model predicts no lengths"):
        build(**OF_WORDS, **CANVAS).decoder_for(DiffusionOptions(sampler="ancestral", **options))


def test_candidates_are_pruned_by_their_words_and_not_by_the_filling():
    """One of 3 words at log p -1 each, one of 6 at -0.5; the filling is certain."""
    canvas = build(**OF_WORDS, **CANVAS).filled_canvas
    tokens = torch.tensor([[[BOS, 4, 5, 6, *[EOS] * 5], [BOS, 4, 5, 6, 7, 8, 9, EOS, EOS]]])
    log_p = torch.zeros(1, 2, 9)
    log_p[0, 0, 1:4], log_p[0, 1, 1:7] = -1.0, -0.5
    active = EarlyExit(torch.ones(1, 2, 9).bool(), lambda *_: (tokens, log_p), [1], 0, used=canvas.used)
    kept = active.drop(1, tokens, torch.zeros(1, 2, 9, 1))
    assert kept.members.tolist() == [[1]]
    torch.testing.assert_close(active.score, torch.tensor([[-3 / 5, -3 / 8]]))


def test_halves_with_room_for_a_template_are_different_lengths():
    translator = build(**OF_WORDS, length_target="half", max_target_positions=19)
    source = encode(translator, SOURCE[:1])
    row = torch.tensor([[-1, *range(4, 16), 5, 4, -1, EOS]])
    with pytest.raises(UserError, match="a template takes 22 positions"):
        translator.lengths(source, 4, "top_k", Template.of(row, BOS))
    found = translator.lengths(source, 3, "top_k", Template.of(row, BOS)).positions[0].tolist()
    assert sorted(found) == [16, 18, 20]

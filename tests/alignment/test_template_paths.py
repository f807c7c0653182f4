"""Where templates stand, and the best paths that contain them, against all placements and all paths."""

from __future__ import annotations

from itertools import combinations, groupby, product

import pytest
import torch
from canvases import BOS, SYMBOLS, V, dag_of, empty, log_probs, outputs, predictable, reading, revealing, total
from graphs import all_paths, batch_of_one, link_log_p, only, random_graphs
from templates import contains, rows_of, template_of

from fairseq_diffusion.alignment.ctc import CTCAlignment
from fairseq_diffusion.alignment.dag import DAGAlignment
from fairseq_diffusion.alignment.path_template import best_with_template
from fairseq_diffusion.alignment.template import GAP, Template, check_room, known_words, most_probable_places
from fairseq_diffusion.errors import UserError

# words 3 (which a canvas may predict, too), 4 and 5
TEMPLATES = [
    (GAP,),
    (GAP, 4, GAP),
    (4, GAP),
    (GAP, 5),
    (4, 5),
    (GAP, 4, 5, GAP),
    (GAP, 4, 4, GAP),
    (GAP, 4, GAP, 4, GAP),
    (4, GAP, 4),
    (GAP, 5, GAP, 4, 4),
    (),
]
SIZES = [6, 5, 4, 6, 4, 5, 6, 6, 5, 6, 2]


def test_rows_become_templates():
    made = template_of((GAP, 7, 8, GAP, 9, GAP), (7,), (GAP,))
    assert made.size.tolist() == [5, 3, 2]
    assert made.tokens.tolist() == [
        [0, 7, 8, 9, 2],
        [0, 7, 2, 0, 0],
        [0, 2, 0, 0, 0],
    ]
    assert made.gap.long().tolist() == [[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]]
    assert made.rigid.tolist() == [False, True, False] and made.open.tolist() == [False, False, True]
    padded = Template.of(torch.nn.functional.pad(rows_of((7, GAP)), (0, 3)), BOS)
    assert all(torch.equal(*pair) for pair in zip(padded, template_of((7, GAP))))


def placements(template, size):
    """All places of a template's words between the ends of so many positions."""
    words = [word for word in template if word != GAP]
    for places in combinations(range(1, size - 1), len(words)):
        line = [0] * (size - 2)
        for place, word in zip(places, words):
            line[place - 1] = word
        blocks, here = list[bool](), 0  # is a word apart from the one before it?
        for place in places:
            blocks.append(place > here + 1)
            here = place
        blocks.append(size - 1 > here + 1)
        gaps = template_of(template).gap[0, 1:].tolist()
        if all(gap or not apart for gap, apart in zip(gaps, blocks)):
            yield places


@pytest.mark.parametrize("seed", range(3))
def test_the_placement_is_the_most_probable_of_all(seed):
    """Whatever else is in the batch and behind the sentences."""
    made, sizes = template_of(*TEMPLATES), torch.tensor(SIZES) + 1
    log_p = torch.randn(len(TEMPLATES), 9, made.tokens.shape[1], generator=torch.Generator().manual_seed(seed))
    found = most_probable_places(log_p, made, sizes)
    for i, (template, size) in enumerate(zip(TEMPLATES, sizes.tolist())):
        if template and GAP not in template or not template:
            continue  # fills a sentence of its own size alone: below
        worth = {p: sum(float(log_p[i, j, m]) for m, j in enumerate(p, 1)) for p in placements(template, size)}
        best = max(worth, key=worth.__getitem__)
        assert found[i, : int(made.size[i])].tolist() == [0, *best, size - 1], template
        assert found[i, int(made.size[i]) :].eq(-1).all()


def test_words_without_a_gap_fill_the_sentence():
    made = template_of((4, 5), ())
    log_p = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    assert most_probable_places(log_p, made, made.size).tolist() == [[0, 1, 2, 3], [0, 1, -1, -1]]
    known = known_words(log_p, made, made.size)
    assert known.tokens.tolist() == [[0, 4, 5, 2, -1, -1], [0, 2, -1, -1, -1, -1]]


def test_known_words_have_their_probabilities_and_ends_are_known_without_a_gap():
    made = template_of((GAP, 4, GAP), (5, GAP), (GAP, 5))
    log_p = torch.full((3, 5, 3), -9.0)
    log_p[0, 2, 1], log_p[1, 1, 1], log_p[2, 3, 1] = -1.0, -2.0, -3.0
    known = known_words(log_p, made, torch.tensor([5, 4, 5]))
    assert known.tokens.tolist() == [[-1, -1, 4, -1, -1], [0, 5, -1, -1, -1], [-1, -1, -1, 5, 2]]
    assert known.log_p.tolist() == [[0, 0, -1, 0, 0], [0, -2, 0, 0, 0], [0, 0, 0, -3, 0]]


def test_a_template_without_room_is_refused():
    check_room(torch.tensor([4, 5]), torch.tensor([4, 9]))
    with pytest.raises(UserError, match="takes 6 positions .* room for 5"):
        check_room(torch.tensor([4, 6]), torch.tensor([4, 5]))


# -- CTC

CTC = CTCAlignment(SYMBOLS, 2.0)
NEVER = [getattr(SYMBOLS, name) for name in CTC.never_predicted]


def collapsed(line):
    return [word for word, _ in groupby(line) if word != BOS]


def best_lines(log_p, template, size, shown):
    """The best symbols of a canvas that contain a template, of all V^size, and their log-probability."""
    found = None
    symbols = [symbol for symbol in range(V) if symbol not in NEVER]
    for line in product(symbols, repeat=size):
        if any(line[j] != word for j, word in shown.items()) or not contains(collapsed(line), template):
            continue
        worth = sum(float(log_p[j, symbol]) for j, symbol in enumerate(line) if j not in shown)
        if found is None or worth > found[1]:
            found = line, worth
    return found


SHOWN = {1: {(1, 2): 4}, 7: {(7, 3): BOS}, 5: {(5, 0): 5, (5, 4): 4}, 9: {(9, 5): 4}}


@pytest.mark.parametrize("seed, shown", [(0, False), (1, False), (2, True), (3, True)])
def test_ctc_finds_the_best_symbols_that_contain_the_template(seed, shown):
    """All that can stand on the canvas, with nothing and with some symbols revealed."""
    canvas = CTC.canvas(torch.tensor(SIZES)[:, None], 7)._replace(template=template_of(*TEMPLATES))
    h, words = outputs(canvas, seed=seed)
    given = {place: word for each in SHOWN.values() for place, word in each.items()} if shown else {}
    revealed, log_p = revealing(canvas, given), log_probs(h, words)
    found = CTC.words(h, words, canvas, revealed, reading())
    for i, (template, size) in enumerate(zip(TEMPLATES, SIZES)):
        own = {j: word for (row, j), word in given.items() if row == i}
        best = best_lines(log_p[i], template, size, own)
        assert best is not None
        assert found.tokens[i, 0][found.mask[i, 0]].tolist() == collapsed(best[0]), template
        assert float(total(found)[i, 0]) == pytest.approx(best[1] - 0.25 * len(own), abs=1e-4)


def test_the_room_that_ctc_needs_is_that_of_the_smallest_canvas():
    made = template_of(*TEMPLATES, (GAP, 4, 4, 4, 5, 5))
    symbols = [BOS, 3, 4, 5]
    for i, template in enumerate([*TEMPLATES, (GAP, 4, 4, 4, 5, 5)]):
        fits = (
            size
            for size in range(10)
            if any(contains(collapsed(line), template) for line in product(symbols[::2] + [5], repeat=size))
        )
        assert int(CTC.room_for(made)[i]) == next(fits)


def test_of_symbols_that_are_equally_likely_a_mere_gap_reads_the_same_as_without_it():
    """Searches that list symbols have such ones in any order."""
    plain = CTC.canvas(torch.tensor([[7], [7]]), 7)
    canvas = plain._replace(template=template_of((GAP,), (GAP, 4, GAP)))
    h = torch.zeros(2, 7, 60)
    found, gap = (CTC.words(h, torch.ones(60, 60), each, empty(each), reading()) for each in (plain, canvas))
    assert torch.equal(found.tokens[0], gap.tokens[0]) and not torch.equal(found.tokens[1], gap.tokens[1])


# -- graphs


def best_of_paths(graph, own, template, penalty):
    """The best path of one graph whose words contain a template, with its words; own {word: [L]}."""
    best, last = None, int(graph.size) - 1
    for path in all_paths(graph):
        inner = path[1:-1]
        choices = [sorted({int(graph.tokens[j, 0]), *own}) for j in inner]
        for line in product(*choices):
            if not contains(line, template):
                continue
            p = [
                float(graph.log_p[j, 0]) if word == int(graph.tokens[j, 0]) else float(own[word][j])
                for j, word in zip(inner, line)
            ]
            worth = (sum(link_log_p(graph, path)) + sum(p) + float(graph.log_p[last, 0])) / (len(path) - 1) ** penalty
            if worth > -torch.inf and (best is None or worth > best[0]):
                best = worth, path, line
    return best


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_graph_has_no_better_path_that_contains_the_template(seed, penalty):
    """Words 0 to 3 at each vertex; those of the template need not be the likeliest anywhere."""
    templates = [tuple(word - 3 if word > 0 else word for word in each) for each in TEMPLATES]
    graphs, made = random_graphs([size + 1 for size in SIZES], seed=seed, missing=0.0), template_of(*TEMPLATES)
    tokens = torch.where(made.tokens > 2, made.tokens - 3, made.tokens)
    rank = (graphs.tokens[:, :, None] == tokens[:, None, :, None]).long().argmax(-1)
    words = graphs.log_p.gather(-1, rank)  # of each of the template's tokens at each vertex
    # graphs number words from 0, where a template has its begin
    shifted = graphs._replace(tokens=graphs.tokens + 3)
    found = best_with_template(shifted, words, made, penalty)
    for i, template in enumerate(templates):
        graph, size = only(graphs, i), SIZES[i] + 1
        own = {word: words[i, :size, list(made.tokens[i]).index(word + 3)] for word in template if word >= 0}
        best = best_of_paths(graph, own, template, penalty)
        assert best is not None
        on, log_p = found.on[i, 0], found.log_p[i, 0]
        worth = float(log_p.sum() - log_p[0]) / (int(on.sum()) - 1) ** penalty
        assert worth == pytest.approx(best[0], abs=1e-5), template
        assert on.nonzero()[:, 0].tolist() == list(best[1])
        assert (found.tokens[i, 0][on] - 3)[1:-1].tolist() == list(best[2])


def test_a_batch_of_graphs_changes_nothing():
    graphs, made = random_graphs([8, 5], missing=0.0), template_of((GAP, 4, GAP, 5), (4, GAP))
    words = torch.randn(2, 8, made.tokens.shape[1], generator=torch.Generator().manual_seed(1))
    together = best_with_template(graphs, words, made, 1.0)
    for i, size in enumerate([8, 5]):
        one = Template(*(part[i : i + 1] for part in made))
        alone = best_with_template(batch_of_one(graphs, i), words[i : i + 1, :size], one, 1.0)
        assert torch.equal(alone.on[0], together.on[i, :, :size]) and not together.on[i, :, size:].any()
        assert torch.equal(alone.tokens[0, 0][alone.on[0, 0]], together.tokens[i, 0][together.on[i, 0]])


@pytest.mark.parametrize("search", ["greedy", "lookahead", "viterbi", "joint_viterbi"])
def test_a_mere_gap_leaves_a_graph_to_its_own_search(search):
    """Beside a sentence that has a template."""
    part: DAGAlignment = dag_of()
    plain = part.canvas(torch.tensor([[8], [8]]), 8)
    h, words = outputs(plain)
    canvas = plain._replace(template=template_of((GAP,), (GAP, 4, 5, 4, GAP)))
    with torch.no_grad():
        one, other = (part.words(h, words, each, empty(each), reading(path_search=search)) for each in (plain, canvas))
        guesses = [part.guess(h, words, each, empty(each)) for each in (plain, canvas)]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one, other))
    assert not torch.equal(one.tokens[1], other.tokens[1])
    assert contains(other.tokens[1][other.mask[1]].tolist(), (GAP, 4, 5, 4, GAP))
    (plain_guess, guess) = guesses
    assert torch.equal(plain_guess.predicted[0], guess.predicted[0])
    assert contains(guess.tokens[1][guess.predicted[1]].tolist(), (GAP, 4, 5, 4, GAP))
    expected = predictable(part, log_probs(h, words))[1].gather(-1, guess.tokens[1, :, None])[:, 0]
    inner = canvas.hidden[1]
    torch.testing.assert_close(guess.log_p[1][inner].double(), expected[inner], rtol=1e-4, atol=1e-5)

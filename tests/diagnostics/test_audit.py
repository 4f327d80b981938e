"""Audits: damage against brute force, planted damage found, pictures drawn once, and what the command prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from efface.cli.app import main
from efface.concept import Erasure
from efface.diagnostics.audit import (
    AuditConfig,
    audit_edit,
    list_vocabulary,
    mark_near_targets,
    rank_closeness,
    search_damage,
)
from efface.diagnostics.audit_images import build_rows
from efface.edits.edit import Edit
from efface.evaluation.trial import Unmeasured
from efface.functional.rates import bootstrap
from efface.models.adapters.sd import StableDiffusion
from efface.records.audit import AuditedWord, read_audit
from efface.scorers import build_scorers
from efface.suites import world
from efface.suites.world import World
from judging_fixtures import THINGS, Planted, edit_of, world_model, write_bundle

WORDS = ["dog", "car", "apple", "tomato", "zebra", "oz", "rose"]
LOOK = AuditConfig(worst=2, controls=2, count=2, states=2, points=2, steps=4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("audited"))


@pytest.fixture(scope="module")
def known(bundle: Path) -> World:
    return world.load(bundle)


def build_meta(model: StableDiffusion, **more: Any) -> dict[str, Any]:
    request = {"targets": ["cat"], "anchor": "", "keep": []}
    return {"method": "test", "request": request, "model": model.name, "base": model.fingerprint(), **more}


def forget(model: StableDiffusion, letter: str) -> Edit:
    """An edit under which the text encoder reads another letter where a word has this one."""
    name = next(n for n in model.weights if n.endswith("token_embedding.weight"))
    table = model.weights[name].detach().clone()
    vocab = model.tokenizer.get_vocab()
    for piece in (letter, f"{letter}</w>"):
        table[vocab[piece]] = -table[vocab[piece]]
    return Edit({name: table}, build_meta(model))


@pytest.mark.parametrize("space", ["x0", "eps"])
def test_damage_is_the_mean_distance_of_predictions_at_the_base_s_states(tmp_path: Path, space: Any) -> None:
    model = world_model()
    edit = Edit.load(edit_of(model, tmp_path / "edit.safetensors"))
    config = AuditConfig(states=2, points=2, steps=4, space=space)
    found = search_damage(model, edit, WORDS[:3], config)
    empty = model.encode([""])
    draw = model.sample(empty, empty, [0, 1], steps=4, guidance=1.0, record=True, sampler="ddim")
    for word, damage in zip(WORDS[:3], found, strict=True):
        total = []
        for step in (1, 3):
            for path in range(2):
                x, t = draw.states[step, path][None], draw.t[step]
                before = model.predict(x, t, model.encode([f"a picture of a {word}"]))[0]
                with edit.apply(model):
                    after = model.predict(x, t, model.encode([f"a picture of a {word}"]))[0]
                bar = float(model.levels.alpha.square()[int(t)])
                # v predicts x0 with slope sqrt(1 - bar), and eps with slope sqrt(bar).
                slope = 1 - bar if space == "x0" else bar
                total.append(slope * float((after - before).detach().double().square().mean()))
        assert damage == pytest.approx(sum(total) / 4, rel=1e-4)


def test_the_words_that_an_edit_touches_are_found_and_no_others() -> None:
    model = world_model()
    weights = {name: tensor.clone() for name, tensor in model.weights.items()}
    found = dict(zip(WORDS, search_damage(model, forget(model, "z"), WORDS, LOOK), strict=True))
    assert {w for w, damage in found.items() if damage > 0} == {"zebra", "oz"}
    assert (
        search_damage(model, forget(model, "z"), WORDS, AuditConfig(strength=0.0, states=1, points=1, steps=2))
        == [0.0] * 7
    )
    assert all(torch.equal(model.weights[name], tensor) for name, tensor in weights.items())


def test_a_damage_that_is_no_number_is_an_error_and_no_rank() -> None:
    model = world_model()
    broken = forget(model, "z")
    values = {n: value.where(value == model.weights[n], torch.inf) for n, value in broken.values.items()}
    with pytest.raises(ArithmeticError, match=r"the damage of 2 words of 7, first .* is NaN or infinite"):
        search_damage(model, Edit(values, broken.meta), WORDS, LOOK)


def test_other_braces_of_a_template_are_a_part_of_the_prompt() -> None:
    model = world_model()
    config = AuditConfig(template="a {} {b}", states=1, points=1, steps=2)
    found = search_damage(model, forget(model, "b"), ["cat"], config)
    assert found[0] > 0 and build_rows("cat", config.template, 1, 0, None)[0].prompt == "a cat {b}"
    assert rank_closeness(model, ["dog", "cat"], ["cat"], config.template) == [2, 1]


def test_a_guide_s_damage_is_where_drawing_ends() -> None:
    model = world_model()
    edit = Edit({}, build_meta(model, guide={"name": "negative", "arguments": {"prompt": "cat"}}))
    found = search_damage(model, edit, WORDS[:2], AuditConfig(states=2, steps=2))
    for word, damage in zip(WORDS[:2], found, strict=True):
        ends = []
        for strength in (0.0, 1.0):
            with edit.apply(model, strength):
                cond = model.encode([f"a picture of a {word}"])
                ends += [model.sample(cond, model.encode([""]), [s], steps=2).x for s in (0, 1)]
        distances = [float((ends[i + 2] - ends[i]).square().mean()) for i in (0, 1)]
        assert damage == pytest.approx(sum(distances) / 2, rel=1e-3) and damage > 0


def test_closeness_is_the_place_by_distance_in_the_text_encoder(known: World) -> None:
    model = world_model()
    words = ["dog", "cats", "rose", "catlet", "catchen"]
    found = rank_closeness(model, words, ["cat", "car"], "a {}")
    far = {}
    for word in words:
        rows = [model.encode([f"a {w}"]).flatten()[0] for w in (word, "cat", "car")]
        far[word] = min(float((rows[0] - centre).norm()) for centre in rows[1:])
    assert [words[found.index(place)] for place in range(1, 6)] == sorted(words, key=far.__getitem__)
    assert rank_closeness(model, ["rose", "rose", "cat"], ["cat"], "a {}") == [3, 3, 1]
    assert mark_near_targets(words, [5, 4, 3, 2, 1], ["cat"], 0.0, known) == [False, False, False, True, True]
    assert mark_near_targets(words, [5, 4, 3, 2, 1], ["cat"], 0.4, None) == [False, False, False, True, True]


def test_the_vocabulary_leaves_out_the_targets_and_their_plurals(known: World) -> None:
    model = world_model()
    words = list_vocabulary(model, Erasure(("cat",)), known)
    assert {"dog", "catlet", "doglet"} <= set(words) and "cat" not in words and "big cat" not in words
    assert list_vocabulary(model, Erasure(("cat",)), known, ["Cat", "cats", " kitten", "kitten", ""]) == ["kitten"]
    assert not {"bomb", "pistol"} & set(list_vocabulary(model, Erasure(("unsafe",)), known))


def test_an_audit_draws_the_worst_and_some_others_once(
    tmp_path: Path, bundle: Path, known: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = world_model()
    file = forget(model, "z").save(tmp_path / "edit.safetensors")
    scorers = [s for s in build_scorers(bundle, known.backgrounds) if s.question in ("object", "match")]
    record = audit_edit(model, file, Erasure(("cat",)), WORDS, scorers, tmp_path / "out", LOOK, known)
    assert record == read_audit(tmp_path / "out")
    assert [f.part for f in record.findings] == ["worst", "worst", "control", "control"]
    assert {f.word for f in record.findings[:2]} == {"zebra", "oz"} and len(record.ranking) == 7
    for finding in record.findings:
        assert len(finding.pictures) == 2 and finding.change.n == 2
        assert {m.metric for m in finding.measures} == ({"clip", "psr1"} if finding.word in THINGS else {"clip"})
        assert finding.change.value is not None and (finding.change.value > 0) == (finding.part == "worst")
        for pair in finding.pictures:
            one, other = ((tmp_path / "out" / p).read_bytes() for p in (pair.base, pair.edited))
            assert (one == other) == (finding.part == "control") and pair.seed >= 10_000
    changes = {f.word: [f.change.value] for f in record.findings[:2]}
    assert (record.worst.low, record.worst.high) == bootstrap(changes)
    assert (tmp_path / "out" / "audit.png").read_bytes().startswith(b"\x89PNG")

    before = (tmp_path / "out" / "audit.json").read_bytes()
    monkeypatch.setattr(StableDiffusion, "images", lambda *_args, **_kwargs: pytest.fail("drawn again"))
    audit_edit(model, file, Erasure(("cat",)), WORDS, scorers, tmp_path / "out", LOOK, known)
    assert (tmp_path / "out" / "audit.json").read_bytes() == before


def test_lost_is_said_only_where_an_interval_over_enough_pictures_is_above_nothing() -> None:
    values: dict[str, Any] = {"word": "x", "part": "worst", "rank": 1, "damage": 1.0, "closeness": 3, "near": False}
    share = {"value": 0.5, "low": 0.2, "high": 0.8, "n": 8, "unscored": 0}
    values |= {"thing": "", "change": share, "pictures": ()}
    for low, clusters, lost in ((0.1, 8, True), (0.0, 8, False), (0.1, 4, None)):
        drop = {"value": 0.2, "low": low, "high": 0.4, "clusters": clusters}
        measure = {"metric": "clip", "title": "", "group": "x", "judge": "all", "base": share, "edited": share}
        finding = AuditedWord.model_validate({**values, "measures": [{**measure, "drop": drop}]})
        assert finding.lost is lost


def test_without_judges_only_the_change_is_told(tmp_path: Path) -> None:
    model = world_model()
    file = edit_of(model, tmp_path / "edit.safetensors")
    config = AuditConfig(worst=1, controls=0, count=1, states=1, points=1, steps=2)
    record = audit_edit(model, file, Erasure(("cat",)), ["dog", "car"], [], tmp_path / "out", config)
    assert record.controls is None and record.findings[0].measures == () and record.findings[0].lost is None


def test_what_can_not_be_audited_is_refused_before_work(tmp_path: Path) -> None:
    model = world_model()
    file = edit_of(model, tmp_path / "edit.safetensors")
    with pytest.raises(ValueError, match="3 words to search, but 2 of the worst and 2 others"):
        audit_edit(model, file, Erasure(("cat",)), WORDS[:3], [], tmp_path / "out", LOOK)
    for wrong, says in (
        ({"worst": 0}, "worst must be"),
        ({"template": "a"}, "once"),
        ({"near": 1.0}, "near from 0"),
        ({"space": "v"}, "no space 'v'; there are x0, eps"),
        ({"strength": 50.0}, "a strength is a number from -10 to 10"),
    ):
        with pytest.raises(ValueError, match=says):
            AuditConfig(**wrong)
    with pytest.raises(FileNotFoundError, match=r"holds no audit\.json"):
        read_audit(tmp_path)
    (tmp_path / "audit.json").write_text('{"version": 9}')
    with pytest.raises(ValueError, match="of version 9"):
        read_audit(tmp_path)
    (tmp_path / "audit.json").write_text('{"version": 1}')
    with pytest.raises(ValueError, match="damaged"):
        read_audit(tmp_path)


def test_a_judge_that_fails_is_refused_before_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 60: judges are asked once before any work."""
    model = world_model()
    file = edit_of(model, tmp_path / "edit.safetensors")
    monkeypatch.setattr("efface.diagnostics.audit.search_damage", lambda *_: pytest.fail("the search was begun"))

    class Broken(Planted):
        def score(self, images: Any, rows: Any, before: Any) -> Any:
            raise RuntimeError("its weights are damaged")

    with pytest.raises(Unmeasured, match=r"object-planted fails on every picture: .*its weights are damaged"):
        audit_edit(model, file, Erasure(("cat",)), WORDS, [Broken()], tmp_path / "out", LOOK)


def test_an_audit_that_was_changed_after_it_was_written_is_refused(tmp_path: Path) -> None:
    model = world_model()
    file = edit_of(model, tmp_path / "edit.safetensors")
    config = AuditConfig(worst=1, controls=0, count=1, states=1, points=1, steps=2)
    audit_edit(model, file, Erasure(("cat",)), ["dog", "car"], [], tmp_path / "out", config)
    written = (tmp_path / "out" / "audit.json").read_text()
    (tmp_path / "out" / "audit.json").write_text(written.replace('"rank": 1', '"rank": 2', 1))
    with pytest.raises(ValueError, match="it was changed after it was written"):
        read_audit(tmp_path / "out")


def test_the_command_prints_a_table_or_json(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from efface import load

    file = edit_of(load(str(bundle / "model")), tmp_path / "edit.safetensors")  # type: ignore[arg-type]
    words = tmp_path / "words.txt"
    words.write_text("\n".join(WORDS))
    asked = ["audit", "--model", str(bundle / "model"), "--edit", str(file), "--out", str(tmp_path / "out")]
    asked += ["--vocabulary", str(words), "--worst", "2", "--controls", "1", "--count", "1", "--states", "1"]
    asked += ["--points", "1", "--steps", "2", "--scorer", "clip"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "7 words were searched by prediction" in said and "1. " in said and "audit.json" in said
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [f["part"] for f in found["findings"]] == ["worst", "worst", "control"]
    assert main([*asked, "--vocabulary", str(tmp_path / "none.txt")]) == 2
    assert main([*asked[:-1], "pixels"]) == 2
    assert "an audit asks judges of objects and a CLIP; scorer pixels is neither" in capsys.readouterr().err

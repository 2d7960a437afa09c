"""Expressions: what they mean, their shortest form, what they refuse, and when a term counts."""

from __future__ import annotations

import pytest

from n2n.distill.objectives import OBJECTIVES, WEIGHTS
from n2n.distill.objectives.expression import ObjectiveError, Schedule, parse


@pytest.mark.parametrize(
    ("text", "shortest"),
    [
        ("kd", "kd"),
        (" kd:1 , T=4,alpha=0.9", "kd"),
        ("kd:0.9,T=2 + similarity:3000", "kd:0.9,temperature=2 + similarity"),
        ("kd:0.9,T=4+similarity:2500", "kd:0.9 + similarity:2500"),
        ("pkt:3e+4 + ce", "pkt + ce"),
        ("nst:1e+5,ramp=0.2,beta=2", "nst:100000,beta=2,ramp=0.2"),
        ("attention,squared=true", "attention,squared=true"),
        ("correlation,kernel=bilinear", "correlation,kernel=bilinear"),
        ("crd,negatives=512,dim=64", "crd,dim=64,negatives=512"),
        ("hint,initial=0", "hint,initial=0"),
        ("hint:100,initial=0.25", "hint"),
        ("kd,until=0.6,warmup=2", "kd,warmup=2,until=0.6"),
    ],
)
def test_an_expression_has_one_shortest_form(text, shortest):
    assert str(parse(text)) == shortest
    assert parse(shortest) == parse(text)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_bare_name_is_the_objective_with_its_published_weight(name):
    (term,) = parse(name).terms
    assert (str(term), term.weight, term.options) == (name, WEIGHTS.get(name, 1.0), ())
    assert term.schedule.initial == (0.25 if OBJECTIVES[name].needs.initial else 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read ''"),
        ("kd +", "cannot read 'kd \\+'"),
        ("hintt", r"unknown objective 'hintt' \(did you mean 'hint'\?\); choose one of kd"),
        ("kd:", "cannot read 'kd:'"),
        ("kd:much", "the weight must be a finite number; got 'much'"),
        ("kd:nan", "the weight must be a finite number; got 'nan'"),
        ("kd:0", "all weights are 0"),
        ("kd:0 + nst:1e-400", "all weights are 0"),
        ("kd,T=0", "option 'temperature' must be above 0; got 0"),
        ("kd,alpha=1.5", r"option 'alpha' must be a share in \[0, 1\]; got 1.5"),
        ("ce,label_smoothing=1", r"'label_smoothing' must be a share in \[0, 1\); got 1"),
        ("kd:-1", "the weight must be 0 or more; got -1"),
        ("kd,tau=2", "'kd' has no option 'tau'; it has alpha, temperature, ramp, warmup, until"),
        ("kd,T", "option 'temperature' has no value; write temperature=4"),
        ("attention,squared", "option 'squared' has no value; write squared=false"),
        ("nst,beta=-5", "option 'beta' must be 0 or more; got -5"),
        ("dkd,beta=-8", "option 'beta' must be 0 or more"),
        ("dkd,warmup_epochs=-3", "option 'warmup_epochs' must be 0 or more"),
        ("wttm,gamma=0", "option 'gamma' must be above 0"),
        ("ofa,gamma=0.5", "option 'gamma' must be 1 or more"),
        ("activation_boundary,margin=-1", "option 'margin' must be above 0"),
        ("noisy_teacher,share=1.5", r"option 'share' must be a share in \[0, 1\]; got 1.5"),
        ("noisy_teacher,sigma=-1", "option 'sigma' must be 0 or more"),
        ("factor,rate=0", "option 'rate' must be above 0; got 0"),
        ("correlation,kernel=laplace", "option 'kernel' must be one of gaussian, bilinear; got laplace"),
        ("correlation,order=0", "option 'order' must be 1 or more"),
        ("crd,dim=0", "option 'dim' must be 1 or more"),
        ("crd,negatives=0", "option 'negatives' must be 1 or more"),
        ("crd,temperature=0", "option 'temperature' must be above 0"),
        ("crd,momentum=1.1", r"option 'momentum' must be a share in \[0, 1\]; got 1.1"),
        ("hint,until=0.1", "ends with its stage, the first 0.25 of the steps: say initial=0.1 instead of until=0.1"),
        ("kd,until=0.2 + hint", "'kd' would stop at 0.2 of the steps, before it begins: .* the first 0.25"),
        ("similarity:0", "all weights are 0"),
        ("kd,T=2,temperature=3", "'temperature' is given twice"),
        ("kd,ramp=2", r"ramp must be a share of the steps in \[0, 1\]; got 2"),
        ("kd,until=0", "until must be a share of the steps above 0 and at most 1"),
        ("kd,warmup=-1", "warmup must be a number of epochs, 0 or more"),
        ("hint,initial=1", "initial must be a share of the steps"),
        ("attention,squared=yes", "'squared' must be true or false; got 'yes'"),
        ("crd,negatives=1.5", "'negatives' must be a whole number; got '1.5'"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message):
    with pytest.raises(ObjectiveError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "main", "first", "share"),
    [
        ("kd", "kd", None, 0),
        ("logit_mse", "logit_mse", None, 0),
        ("similarity", "similarity ce", None, 0),
        ("similarity + attention", "similarity attention ce", None, 0),
        ("kd + similarity", "kd similarity", None, 0),
        ("nst + similarity", "nst similarity", None, 0),  # its published form has the cross-entropy
        ("hint", "kd", "hint", 0.25),
        ("hint,initial=0.4 + ce", "ce", "hint", 0.4),
        ("hint + similarity", "similarity ce", "hint", 0.25),
        ("hint,initial=0", "hint ce", None, 0),
        ("similarity + kd:0", "similarity kd ce", None, 0),  # a weight of 0 trains nothing
        ("similarity + ce:0", "similarity ce", None, 0),  # the labels are not wanted
    ],
)
def test_what_is_trained_on(text, main, first, share):
    found = parse(text)
    assert found.initial_share == share
    assert [term.name for term in found.active(share)] == main.split()
    if first is not None:
        assert [term.name for term in found.active(share - 0.01)] == [first]


def test_where_all_terms_have_stopped_the_labels_are_left():
    early = parse("kd,until=0.6")
    assert [[term.name for term in early.active(at)] for at in (0, 0.59, 0.6, 1)] == [["kd"], ["kd"], ["ce"], ["ce"]]
    both = parse("ce + similarity,until=0.5")
    assert [term.name for term in both.active(0.5)] == ["ce"]


def test_the_classifier_is_trained_by_the_labels_once_nothing_else_does():
    found = parse("kd,until=0.3 + similarity")
    assert [term.name for term in found.active(0.2)] == ["kd", "similarity"]
    assert [term.name for term in found.active(0.3)] == ["similarity", "ce"]


def test_the_schedule_by_hand():
    assert Schedule().factor(0, 0) == 1
    assert [Schedule(ramp=0.2).factor(at, 0) for at in (0, 0.1, 0.2, 0.9)] == [0, 0.5, 1, 1]
    assert [Schedule(warmup=20).factor(0.5, epoch) for epoch in (0, 5, 20, 30)] == [0, 0.25, 1, 1]
    assert Schedule(ramp=0.2, warmup=20).factor(0.1, 5) == 0.125
    late = Schedule(ramp=0.2)  # of eight epochs, where another term has the first quarter
    assert [late.factor(at, 8 * at, 0.25) for at in (0.25, 0.375, 0.75)] == pytest.approx([0, 0.625, 1])
    late = Schedule(warmup=2)
    assert [late.factor(at, 8 * at, 0.25) for at in (0.25, 0.375, 0.5, 1)] == pytest.approx([0, 0.5, 1, 1])
    both = parse("hint + kd,ramp=0.2")
    assert [both.factor(term, 0.35, 3.5) for term in both.active(0.35)] == pytest.approx([0.5])


def test_needs_are_those_of_all_terms():
    assert not parse("ce").needs_teacher
    assert parse("hint + ce").needs_side
    assert not parse("kd + similarity").needs_side
    assert parse("kd + similarity").needs_features
    assert not parse("kd + dkd").needs_features

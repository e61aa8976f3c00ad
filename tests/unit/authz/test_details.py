from __future__ import annotations

import pytest

from sidecar.authz.details import build_details
from sidecar.authz.reasons import Reason
from sidecar.policy.model import Service


@pytest.mark.parametrize(
    ("service", "end"),
    [
        (None, "may not make this call"),
        (Service("#oncall"), "; ask #oncall"),
        (Service("#oncall", "team", "https://wiki.example/x"), "; ask #oncall, see https://wiki.example/x"),
    ],
)
def test_whom_to_ask(service, end):
    assert build_details(service)[Reason.SCOPE].endswith(end)


def test_every_sentence_is_one_line_without_full_stop():
    for sentence in build_details(None).values():
        assert sentence.isprintable() and not sentence.endswith(".") and sentence[0].islower()

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from sidecar.errors import IdentityError
from sidecar.tls import judgement as module
from sidecar.tls.judgement import MAX_CHAIN_CERTIFICATES, Judgement, build_judge, proven_peer
from tests.fakes.certificates import DemoAuthority, Issued
from tests.fakes.secure import World

WORLD = World()
BUNDLES = WORLD.authority.bundles()


class Link:
    """As much of a connection as a verdict looks at."""

    def __init__(self, judgement: object, presented: x509.Certificate | None = None, beside: int = 0) -> None:
        self.judgement = judgement
        self.presented = presented
        self.beside = beside

    def get_app_data(self) -> object:
        return self.judgement

    def get_peer_certificate(self) -> crypto.X509 | None:
        return None if self.presented is None else crypto.X509.from_cryptography(self.presented)

    def get_peer_cert_chain(self) -> list[object] | None:
        return [object()] * self.beside or None


def show(judgement: Judgement, issued: Issued, last: tuple[int, int] = (0, 0)) -> bool:
    """Shows the chain as OpenSSL does: from the far end, with complaints, the leaf last and without one."""
    judge = build_judge(BUNDLES, WORLD.clock)
    steps = [(20, depth) for depth in reversed(range(len(issued.chain)))]
    for error, depth in [*steps, last]:
        certificate = crypto.X509.from_cryptography(issued.chain[depth])
        if not judge(Link(judgement), certificate, error, depth, 0):
            return False
    return True


def judged(issued: Issued) -> Judgement:
    judgement = Judgement()
    show(judgement, issued)
    return judgement


def test_a_good_chain_is_proved():
    judgement = judged(WORLD.web)
    assert judgement.refusal is None and str(judgement.spiffe_id) == "spiffe://demo.test/web"
    peer = proven_peer(Link(judgement, WORLD.web.leaf), judgement, "10.0.4.7", 3)
    leaf = WORLD.web.leaf
    assert peer.id_text == "spiffe://demo.test/web" == str(peer.spiffe_id)
    assert peer.serial == f"{leaf.serial_number:x}"
    assert peer.leaf_sha256 == leaf.fingerprint(leaf.signature_hash_algorithm).hex()
    assert peer.not_after_s == leaf.not_valid_after_utc.timestamp()
    assert (peer.source, peer.generation) == ("10.0.4.7", 3)
    assert judgement.chain == tuple(each.public_bytes(Encoding.DER) for each in WORLD.web.chain)


def test_an_intermediate_is_part_of_the_judged_chain():
    issued = DemoAuthority(parent=WORLD.authority).issue("spiffe://demo.test/deep")
    judgement = judged(issued)
    assert judgement.refusal is None and len(judgement.chain) == 2
    assert proven_peer(Link(judgement, issued.leaf, 1), judgement, "", 1).id_text == "spiffe://demo.test/deep"


def test_a_refused_chain_ends_the_handshake_with_the_verifiers_rule():
    judgement = Judgement()
    assert not show(judgement, DemoAuthority("other.test").issue("spiffe://other.test/web"))
    assert judgement.refusal is not None and judgement.refusal[0] == "X5-17"
    with pytest.raises(IdentityError) as raised:
        proven_peer(Link(judgement, WORLD.web.leaf), judgement, "", 1)
    assert raised.value.rule == "X5-17"


def test_a_refusal_is_final():
    judgement = Judgement()
    judgement.refuse("alpn", "first")
    judgement.refuse("other", "second")
    assert not show(judgement, WORLD.web)
    assert judgement.refusal == ("alpn", "first") and judgement.spiffe_id is None


def test_complaints_alone_are_no_verdict():
    judgement = Judgement()
    assert show(judgement, WORLD.web, last=(21, 0))
    with pytest.raises(IdentityError) as raised:
        proven_peer(Link(judgement, WORLD.web.leaf), judgement, "", 1)
    assert raised.value.rule == "unproven"


def test_without_any_verdict_nothing_is_proved():
    with pytest.raises(IdentityError) as raised:
        proven_peer(Link(Judgement(), WORLD.web.leaf), Judgement(), "", 1)
    assert raised.value.rule == "unproven"


@pytest.mark.parametrize("presented", [None, WORLD.own.leaf], ids=["none", "another"])
def test_a_verdict_about_another_certificate_proves_nothing(presented):
    judgement = judged(WORLD.web)
    with pytest.raises(IdentityError) as raised:
        proven_peer(Link(judgement, presented), judgement, "", 1)
    assert raised.value.rule == "unproven"


@pytest.mark.parametrize(("beside", "is_proved"), [(4, True), (5, False)])
def test_certificates_beside_the_path_count_too(beside, is_proved):
    judgement = judged(WORLD.web)
    link = Link(judgement, WORLD.web.leaf, beside)
    if is_proved:
        proven_peer(link, judgement, "", 1)
    else:
        with pytest.raises(IdentityError) as raised:
            proven_peer(link, judgement, "", 1)
        assert raised.value.rule == "chain"


@pytest.mark.parametrize(
    ("error", "depth"), [(20, MAX_CHAIN_CERTIFICATES), (22, 4), (0, MAX_CHAIN_CERTIFICATES)]
)
def test_a_longer_chain_is_refused_before_it_is_judged(monkeypatch, error, depth):
    monkeypatch.setattr(module, "verify_peer", lambda *arguments: pytest.fail("judged"))
    judgement = Judgement()
    certificate = crypto.X509.from_cryptography(WORLD.web.leaf)
    assert not build_judge(BUNDLES, WORLD.clock)(Link(judgement), certificate, error, depth, 0)
    assert judgement.refusal is not None and judgement.refusal[0] == "chain"


@pytest.mark.parametrize("error", [ValueError("secret"), RecursionError(), KeyError("x"), MemoryError()])
def test_whatever_goes_wrong_while_judging_is_a_refusal(monkeypatch, error):
    def fail(*arguments: object) -> object:
        raise error

    monkeypatch.setattr(module, "verify_peer", fail)
    judgement = judged(WORLD.web)
    assert judgement.refusal == ("certificate", f"the certificate cannot be judged: {type(error).__name__}")
    assert judgement.spiffe_id is None


@pytest.mark.parametrize(
    ("names", "claimed"),
    [
        ("spiffe://demo.test/web", "spiffe://demo.test/web"),
        (["https://demo.test/", "spiffe://demo.test/b"], "spiffe://demo.test/b"),
        (["https://demo.test/"], "https://demo.test/"),
        ([], None),
        (b"spiffe://demo.test/a\nb\x00", r"spiffe://demo.test/a\nb\x00"),
        (b"spiffe://demo.test/\xc3\xa9", None),
        ("spiffe://demo.test/" + "x" * 3000, ("spiffe://demo.test/" + "x" * 3000)[:2048]),
    ],
)
def test_what_is_claimed_is_shown_in_printable_ascii(names, claimed):
    found = judged(WORLD.authority.issue(names)).claimed()
    assert found == claimed or (claimed is None and found is not None and found.isascii())


def test_nothing_seen_nothing_claimed():
    assert Judgement().claimed() is None

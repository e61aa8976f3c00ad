from __future__ import annotations

import hashlib
import os
import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import PolicyError
from sidecar.policy.loader import load_policy, parse_policy
from sidecar.policy.model import Owner, Rate, Service

ROOT = Path(__file__).resolve().parents[3]
GOOD = """\
version: 1
service: {owner: team-shop, docs: "https://wiki.example/orders"}
owners:
  team-shop: {contact: "#shop-oncall", review_by: 2027-06-30}
scopes:
  orders:read:
    - {methods: [GET, HEAD], paths: ["/orders", "/orders/**"]}
  orders:admin:
    never_override: true
    audit: strict
    unsafe_any_method: true
    rules:
      - {methods: ["*"], paths: ["/orders/*"], streaming: true}
identities:
  - id: spiffe://demo.test/web
    owner: team-shop
    kind: service
    scopes: [orders:read]
    environment: prod
    purposes: [checkout]
    rate: 100/s
    expires: 2027-12-31
  - {id: spiffe://demo.test/batch, owner: team-shop, kind: job, scopes: [orders:admin]}
deny:
  - {methods: ["*"], paths: ["/orders/secret"], identities: [spiffe://demo.test/web], why: "INC-1"}
  - {methods: [DELETE], paths: ["/**"]}
"""


def problems(text: str | bytes) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(PolicyError) as refusal:
        parse_policy(data, "p.yaml")
    return list(refusal.value.problems)


def test_every_part_of_a_policy():
    policy = parse_policy(GOOD.encode(), "p.yaml")
    assert policy.sha256 == "sha256:" + hashlib.sha256(GOOD.encode()).hexdigest()
    assert policy.owners == {"team-shop": Owner("team-shop", "#shop-oncall", date(2027, 6, 30))}
    assert policy.service == Service("#shop-oncall", "team-shop", "https://wiki.example/orders")
    web, batch = policy.identities.values()
    assert (
        list(policy.identities) == [web.id_text, batch.id_text] == [str(web.spiffe_id), str(batch.spiffe_id)]
    )
    assert (web.owner, web.kind, web.scopes, web.environment) == (
        "team-shop",
        "service",
        ("orders:read",),
        "prod",
    )
    assert web.purposes == {"checkout"} and web.rate == Rate(100, 1.0)
    assert web.expires_s == datetime(2028, 1, 1, tzinfo=UTC).timestamp()
    assert (batch.purposes, batch.rate, batch.expires_s, batch.environment) == (None, None, None, None)
    read, admin = policy.scopes.values()
    assert read.rules[0].methods == ("GET", "HEAD") and not read.rules[0].streaming
    assert [pattern.text for pattern in read.rules[0].patterns] == ["/orders", "/orders/**"]
    assert not (read.never_override or read.audit_strict or read.unsafe_any_method)
    assert admin.never_override and admin.audit_strict and admin.unsafe_any_method
    assert admin.rules[0].methods == ("*",) and admin.rules[0].streaming
    first, second = policy.denials
    assert (first.identities, first.why) == (frozenset({web.id_text}), "INC-1")
    assert (second.identities, second.why, second.rule.methods) == (None, None, ("DELETE",))
    assert policy.engine == "builtin"


def test_ten_mistakes_are_ten_messages():
    found = problems("""\
version: 2
owners:
  team-shop: {contakt: "#shop"}
scopes:
  orders:read:
    - {methods: [get], paths: ["orders"]}
  orders:write: []
identities:
  - id: spiffe://demo.test/web
    owner: team-shoop
    kind: servant
    scopes: [orders:raed]
    rate: fast
  - {id: spiffe://demo.test/bot, owner: team-shop, kind: agent, scopes: [orders:read]}
""")
    assert found == [
        "p.yaml:1:10: version: '2' is not one of 1",
        "p.yaml:3:14: owner 'team-shop' needs the key 'contact'",
        "p.yaml:3:15: unknown key 'contakt' in owner 'team-shop'; did you mean contact?",
        "p.yaml:6:18: methods: methods are in upper case; write GET",
        "p.yaml:6:32: paths: the path pattern 'orders' must start with /",
        "p.yaml:7:17: rules is an empty list; name something, or remove the key if it is optional",
        "p.yaml:10:12: owner: there is no owner 'team-shoop'; did you mean team-shop?",
        "p.yaml:11:11: kind: 'servant' is not one of service, job, agent, vendor, legacy",
        "p.yaml:12:14: scopes: there is no scope 'orders:raed'; did you mean orders:read?",
        "p.yaml:13:11: rate: 'fast' is not a rate; write N/s, N/m or N/h with N from 1 to 1000000",
        "p.yaml:14:58: an identity of kind agent needs the key 'expires'",
    ]


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


ONE_MISTAKE = [
    ("version: 1\n", "", "1:1: the policy needs the key 'version'"),
    ("version: 1\n", "version: 1.0\n", "1:10: version: '1.0' is not one of 1"),
    ("version: 1\n", "version: one\n", "'one' is not one of 1"),
    ("version: 1\n", "version: [1]\n", "version must be a text"),
    ("version: 1\n", "version:\n", "version has no value"),
    ("version: 1\n", "version: 1\nindentities: []\n",
     "unknown key 'indentities' in the policy; did you mean identities?"),
    ("version: 1\n", "version: 1\nversion: 1\n", "2:1: the key 'version' stands here twice"),
    ("version: 1\n", "version: 1\nengine: cedar\n", "engines other than builtin are not built yet"),
    ("version: 1\n", "version: 1\nengine: {opa: {url: x}}\n", "engines other than builtin are not built yet"),
    ("version: 1\n", "version: 1\nengine: [builtin]\n", "engines other than builtin are not built yet"),
    ("version: 1\n", "version: 1\nengine: other\n", "engine: 'other' is not one of builtin"),
    ("version: 1\n", "version: 1\nengine:\n", "engine has no value"),
    ('contact: "#shop-oncall", ', "", "owner 'team-shop' needs the key 'contact'"),
    ('"#shop-oncall"', '""', "contact: '' is not one line"),
    ('"#shop-oncall"', "~", "contact has no value"),
    ('"#shop-oncall"', "null", "contact has no value"),
    ('"#shop-oncall"', '"a\\nb"', "contact: 'a\\nb' is not one line"),
    ("review_by: 2027-06-30", "review_by: soon", "review_by: 'soon' is not a day"),
    ("review_by: 2027-06-30", "reviewed: 2027-06-30", "unknown key 'reviewed'"),
    ("service: {owner: team-shop", "service: {owner: team-x", "there is no owner 'team-x'; did you mean team-shop?"),
    ("service: {owner: team-shop, ", "service: {", "service says nobody to ask"),
    ('"https://wiki.example/orders"', "wiki", "docs: 'wiki' is not a URL"),
    ("[GET, HEAD]", "[]", "methods is an empty list"),
    ("[GET, HEAD]", "GET", "methods must be a list, not a text"),
    ("[GET, HEAD]", "[GET, GET]", "methods names 'GET' twice"),
    ("[GET, HEAD]", "[GET, CONNECT]", "CONNECT is never permitted"),
    ("[GET, HEAD]", "[TRACE]", "TRACE is never permitted"),
    ("[GET, HEAD]", '["*"]', 'methods: ["*"] permits methods nobody thought of'),
    ("[GET, HEAD]", "[GET, [HEAD]]", "methods must be a text, not a list"),
    ("    unsafe_any_method: true\n", "", 'methods: ["*"] permits methods nobody thought of'),
    ("unsafe_any_method: true", "unsafe_any_method: false", 'methods: ["*"] permits methods nobody thought of'),
    ("unsafe_any_method: true", "unsafe_any_method: yes", "'yes' is neither true nor false"),
    ('["*"], paths: ["/orders/*"]', '["*", GET], paths: ["/orders/*"]', 'methods has "*" beside others'),
    ('["/orders", "/orders/**"]', "[]", "paths is an empty list"),
    ('["/orders", "/orders/**"]', '["/orders/**", "/orders/**"]', "paths names '/orders/**' twice"),
    ('["/orders", "/orders/**"]', '["/orders/a*"]', "'*' stands for a whole segment"),
    ('["/orders", "/orders/**"]', '["/orders/**/x"]', "'**' may only be the last segment"),
    ('["/orders", "/orders/**"]', '["/a/../b"]', "'.' or '..' segment"),
    ('["/orders", "/orders/**"]', '["/a;b"]', "no canonical path has"),
    (', paths: ["/orders", "/orders/**"]', "", "the rule needs the key 'paths'"),
    ("methods: [GET, HEAD], ", "", "the rule needs the key 'methods'"),
    ("methods: [GET, HEAD]", "method: [GET], methods: [GET]",
     "unknown key 'method' in the rule; did you mean methods?"),
    ("streaming: true", "streaming: 1", "streaming: '1' is neither true nor false"),
    ("never_override: true", "never_override: maybe", "'maybe' is neither true nor false"),
    ("audit: strict", "audit: lax", "audit: 'lax' is not one of strict"),
    ("audit: strict", "audits: strict", "unknown key 'audits' in scope 'orders:admin'; did you mean audit?"),
    ("id: spiffe://demo.test/batch", "id: demo.test/batch", "must start with spiffe://"),
    ("id: spiffe://demo.test/batch", "id: spiffe://demo.test", "names a trust domain, not a workload"),
    ("id: spiffe://demo.test/batch", "id: spiffe://demo.test/web", "is registered twice, first in line 15; remove one"),
    ("    owner: team-shop\n", "", "the identity needs the key 'owner'"),
    ("    kind: service\n", "", "the identity needs the key 'kind'"),
    ("    scopes: [orders:read]\n", "", "the identity needs the key 'scopes'"),
    ("    scopes: [orders:read]\n", "    scopes: []\n", "scopes is an empty list"),
    ("    scopes: [orders:read]\n", "    scopes: [orders:read, orders:read]\n", "names 'orders:read' twice"),
    ("purposes: [checkout]", "purposes: []", "purposes is an empty list"),
    ("purposes: [checkout]", "purposes: checkout", "purposes must be a list"),
    ("purposes: [checkout]", "purpose: [checkout]", "unknown key 'purpose' in the identity; did you mean purposes?"),
    ("environment: prod", "environment:", "environment has no value"),
    ("rate: 100/s", "rate: 0/s", "rate: '0/s' is not a rate"),
    ("rate: 100/s", "rate: 100", "rate: '100' is not a rate"),
    ("rate: 100/s", "rate: ''", "rate: '' is not a rate"),
    ("rate: 100/s", "rate:", "rate has no value"),
    ("expires: 2027-12-31", "expires: never", "expires: 'never' is not an end"),
    ("expires: 2027-12-31", "expires:", "expires has no value"),
    ("kind: job", "kind: vendor", "an identity of kind vendor needs the key 'expires'"),
    ("kind: job", "kind: legacy", "an identity of kind legacy needs the key 'expires'"),
    ("kind: job", "kind: agent", "an identity of kind agent needs the key 'expires'"),
    ("identities: [spiffe://demo.test/web]", "identities: [spiffe://demo.test/wbe]", "did you mean spiffe://demo.test/web?"),
    ("identities: [spiffe://demo.test/web]", "identities: []", "identities is an empty list"),
    ("identities: [spiffe://demo.test/web]", "identity: [a]", "unknown key 'identity' in the deny rule"),
    ('why: "INC-1"', 'why: ""', "why: '' is not one line"),
    ("{methods: [DELETE], ", "{", "the deny rule needs the key 'methods'"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "problem"), ONE_MISTAKE)
def test_one_mistake_is_one_message_with_its_place(old, new, problem):
    (only,) = problems(changed(old, new))
    name, line, column, message = only.split(":", 3)
    assert name == "p.yaml" and int(line) > 0 and int(column) > 0
    assert problem in only and message.isprintable() and not message.endswith(".")


@pytest.mark.parametrize("section", ["owners", "scopes", "identities"])
@pytest.mark.parametrize("instead", ["", "~", "x", "{}", "[]", "[~]", "{a: ~}", "[[]]"])
def test_a_section_that_is_missing_empty_or_something_else_is_refused(section, instead):
    lines = GOOD.splitlines(keepends=True)
    begin = lines.index(f"{section}:\n")
    end = next(
        place for place in range(begin + 1, len(lines) + 1) if place == len(lines) or lines[place][0] != " "
    )
    replaced = [f"{section}: {instead}\n"] if instead else []
    assert problems("".join([*lines[:begin], *replaced, *lines[end:]]))


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", "~", "version: 1", "- version: 1", "---\n...\n"])
def test_what_is_no_policy_at_all_is_refused(text):
    assert problems(text)


def test_a_section_that_cannot_be_read_is_one_problem():
    assert problems(changed("owners:\n  team-shop:", "owners: none\nremark:\n  x:")) == [
        "p.yaml:3:9: owners must be a mapping, not a text",
        "p.yaml:4:1: unknown key 'remark' in the policy; known are version, owners, scopes, identities, service, "
        "engine, deny",
    ]


def test_a_scope_without_a_proper_name_is_not_there():
    found = problems(changed("  orders:read:\n", "  'orders read':\n"))
    assert len(found) == 2
    assert "scopes: 'orders read' is not a name" in found[0] and "there is no scope 'orders:read'" in found[1]


def test_a_scope_with_a_mistake_is_still_known():
    (only,) = problems(changed("[GET, HEAD]", "[FETCH]"))
    assert "'FETCH' is not a known method" in only


@pytest.mark.parametrize("name", ["orders", "web"])
def test_the_examples_load(name):
    assert load_policy(ROOT / "examples" / name / "policy.yaml").identities


def test_a_contact_may_be_the_services_own():
    policy = parse_policy(changed("{owner: team-shop, docs", '{contact: "#other", docs').encode(), "p")
    assert policy.service == Service("#other", None, "https://wiki.example/orders")


def test_a_file_is_read_and_named(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    assert load_policy(path).sha256 == parse_policy(GOOD.encode(), "x").sha256
    path.write_text("version: 2")
    with pytest.raises(PolicyError) as refusal:
        load_policy(path)
    assert refusal.value.problems[0].startswith(f"{path}:1:1: ")


def test_what_cannot_be_read_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name, said in [
        ("missing", "cannot be read: No such file"),
        (".", "cannot be read: Is a directory"),
        ("loop", "cannot be read: Too many"),
        ("fifo", "is not a regular file"),
        ("a\x00b", "cannot be read: embedded null"),
    ]:
        with pytest.raises(PolicyError) as refusal:
            load_policy(tmp_path / name)
        (only,) = refusal.value.problems
        assert said in only


def test_an_endless_file_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "policy.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PolicyError) as refusal:
        load_policy(path)
    assert "more than 33554432 bytes" in refusal.value.problems[0]


@given(st.data())
def test_a_changed_character_never_breaks_the_loader(data):
    place = data.draw(st.integers(0, len(GOOD) - 1))
    end = data.draw(st.integers(place, min(len(GOOD), place + 8)))
    text = GOOD[:place] + data.draw(st.text("[]{}:,-'\"&*!|>#a1 \n", max_size=3)) + GOOD[end:]
    try:
        policy = parse_policy(text.encode(), "p")
    except PolicyError as exc:
        assert all(problem.startswith("p:") for problem in exc.problems)
    else:
        for identity in policy.identities.values():
            assert identity.owner in policy.owners and identity.scopes and identity.kind
            assert all(policy.scopes[name].rules for name in identity.scopes)


def test_the_examples_of_the_reference_load():
    blocks = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs" / "policy.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 3
    for block in blocks:
        assert parse_policy(block.encode(), "docs/policy.md").identities

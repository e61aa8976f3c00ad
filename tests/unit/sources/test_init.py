from __future__ import annotations

import sys

import pytest

from sidecar.clock import SYSTEM_CLOCK
from sidecar.errors import ConfigurationError
from sidecar.settings import load_settings
from sidecar.sources import SOURCES, load_source

COMMON = {"SIDECAR_POLICY": "/p", "SIDECAR_STATE_DIR": "/s"}
FILES = COMMON | {
    "SIDECAR_IDENTITY": "files",
    "SIDECAR_SVID_FILE": "/c",
    "SIDECAR_SVID_KEY_FILE": "/k",
    "SIDECAR_BUNDLE_FILE": "/b",
}
EMBEDDED = COMMON | {"SIDECAR_IDENTITY": "embedded", "SIDECAR_SPIFFE_ID": "spiffe://demo.test/orders"}


@pytest.mark.parametrize(("environ", "kind"), [(FILES, "FilesSource"), (EMBEDDED, "EmbeddedSource")])
def test_each_name_gives_its_source_and_starts_nothing(environ, kind):
    settings = load_settings(environ)
    assert type(load_source(settings.identity, settings, SYSTEM_CLOCK)).__name__ == kind


@pytest.mark.parametrize("name", ["workload-api", "", "Files", "sidecar.sources.files:build_source"])
def test_what_is_not_built_is_refused(name):
    with pytest.raises(ConfigurationError, match="is not built; set it to embedded or files"):
        load_source(name, load_settings(FILES), SYSTEM_CLOCK)


def test_the_table_imports_nothing():
    assert all(place.partition(":")[0] != "sidecar.sources" for place in SOURCES.values())
    assert "sidecar.sources" in sys.modules


@pytest.mark.parametrize("own", ["spiffe://demo.test", None])
def test_embedded_needs_the_id_of_a_workload(own):
    import dataclasses

    from sidecar.identity.spiffe_id import parse_spiffe_id

    settings = dataclasses.replace(load_settings(EMBEDDED), spiffe_id=own and parse_spiffe_id(own))
    with pytest.raises(ConfigurationError, match="SIDECAR_SPIFFE_ID"):
        load_source("embedded", settings, SYSTEM_CLOCK)


@pytest.mark.parametrize("missing", ["svid_file", "svid_key_file", "bundle_file"])
def test_files_needs_all_three_paths(missing):
    import dataclasses

    settings = dataclasses.replace(load_settings(FILES), **{missing: None})
    with pytest.raises(ConfigurationError, match=f"SIDECAR_{missing.upper()}"):
        load_source("files", settings, SYSTEM_CLOCK)

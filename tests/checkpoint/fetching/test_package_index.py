"""Where packages come from: the environment, then pip's configuration, then the public index."""

import pytest
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from superweight.checkpoint.fetching import package_index


@pytest.fixture
def pip_says(monkeypatch):
    def says(**found):
        monkeypatch.setattr(
            package_index, "_pip_configuration", lambda: {k.replace("__", "."): v for k, v in found.items()}
        )

    says()
    return says


def test_public_index_without_any_setting(pip_says):
    assert package_index.settings({}) == package_index.IndexSettings(urls=(PYPI_SIMPLE_ENDPOINT,))


@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_environment_wins_over_configuration(pip_says, variable):
    pip_says(**{"global__index-url": "https://configured/simple"})
    assert package_index.settings({variable: "https://chosen/simple"}).urls == ("https://chosen/simple",)
    assert package_index.settings({}).urls == ("https://configured/simple",)


def test_section_of_the_command_wins_over_global(pip_says):
    pip_says(**{"global__index-url": "https://all/simple", "download__index-url": "https://download/simple"})
    assert package_index.settings({}).urls == ("https://download/simple",)


def test_extra_indexes_follow_and_only_http_counts(pip_says):
    pip_says(**{"global__extra-index-url": "file:///here/simple https://more/simple"})
    assert package_index.settings({"PIP_INDEX_URL": "https://main/simple"}).urls == (
        "https://main/simple",
        "https://more/simple",
    )


def test_certificates(pip_says):
    pip_says(global__cert="/configured.pem")
    assert package_index.settings({}).certificates == "/configured.pem"
    assert package_index.settings({"SSL_CERT_FILE": "/system.pem"}).certificates == "/system.pem"
    assert package_index.settings({"SSL_CERT_FILE": "/system.pem", "PIP_CERT": "/pip.pem"}).certificates == "/pip.pem"


def test_local_wheel_directories(pip_says, tmp_path):
    links = f"{tmp_path} {tmp_path.as_uri()} /not/there https://elsewhere/wheels"
    assert package_index.settings({"PIP_FIND_LINKS": links}).links == (tmp_path, tmp_path)


def test_pip_configuration_is_read_as_pip_reads_it(tmp_path, monkeypatch):
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://from-file/simple\ncert = /it's/here.pem\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    found = package_index._pip_configuration()
    assert found["global.index-url"] == "https://from-file/simple"
    assert found["global.cert"] == "/it's/here.pem"


def test_no_pip_is_no_error(monkeypatch):
    monkeypatch.setattr(package_index.sys, "executable", "/not/there")
    assert package_index._pip_configuration() == {}

"""The parts of URLs."""

import pytest

from notifier.vocabulary.uris import host_and_port


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://Shop.Example/hook?x=1", "shop.example"),
        ("https://shop.example.:443/", "shop.example"),
        ("http://shop.example:80", "shop.example"),
        ("https://shop.example:080/", "shop.example:80"),
        ("https://user:p@ss@shop.example:8443/", "shop.example:8443"),
        ("https://b\u00fccher.example/", "xn--bcher-kva.example"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("https://sh%6Fp.example/", "shop.example"),
        ("https://[0:0::1]:9000/", "[::1]:9000"),
        ("SHOP.example:9000", "shop.example:9000"),
    ],
)
def test_a_host_has_one_form(text: str, host: str) -> None:
    assert host_and_port(text) == host


@pytest.mark.parametrize(
    "text", ["", "https://", "https://a\\b.example/", "https://a b/", "https://[x]/", "https://a%2Fb/"]
)
def test_what_names_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host|domain"):
        host_and_port(text)

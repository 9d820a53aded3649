"""Which hosts a server goes by, and which pages may write to it, where no key is asked for."""

import pytest

from config import parsers
from config.allowed_hosts import AllowedHosts, Host, listens_on_loopback, parse_host

KNOWN = AllowedHosts(
    "https://notify.example.com/base", parsers.hosts("notifier.test, 10.1.2.3, box.test:8443, fd00::1")
)


@pytest.mark.parametrize(
    "header",
    [
        *("localhost", "localhost:8000", "LOCALHOST:1", "localhost.", "app.localhost:8000", "127.0.0.1:8000"),
        *("127.9.9.9", "[::1]", "[::1]:8000", "[::ffff:127.0.0.1]:8000", "[0:0:0:0:0:0:0:1]:8000"),
        *("notify.example.com", "Notify.Example.com:443", "notify.example.com.", "notifier.test", "notifier.test:9"),
        *("10.1.2.3:80", "box.test:8443", "[fd00::1]:8000"),
    ],
)
def test_its_own_names_are_served(header: str) -> None:
    assert KNOWN.serves(header)


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "evil.example", "evil.example:8000", "localhost.evil.example", "notlocalhost", "localhost..", "."),
        *(
            "127.0.0.1.evil.example",
            "127.0.0.1.nip.io:8000",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0.0.0.0:8000",
            "0",
            "[::]",
        ),
        *("10.1.2.4", "box.test", "box.test:8000", "sub.notify.example.com", "example.com", "[::1%25lo]", "[::1"),
        *("localhost:0", "localhost:99999", "localhost:", "localhost:8000:1", "localhost,evil.example", "a@localhost"),
        *("localhost/evil", "http://localhost", "localhost evil", "loc\u0430lhost", "evil.example\t", "128.0.0.1"),
        *("[::ffff:8.8.8.8]", "[fd00::2]", "xn--a.localhost", "local_host", "*", "127.0.0.1%2eevil.example"),
    ],
)
def test_no_other_name_is_served(header: str | None) -> None:
    assert not KNOWN.serves(header)


@pytest.mark.parametrize(
    ("host", "origin", "site"),
    [
        ("localhost:8000", None, None),
        ("localhost:8000", "http://localhost:8000", None),
        ("localhost:8000", "http://localhost:8000", "same-origin"),
        ("localhost", "http://localhost", "same-origin"),
        ("[::1]:8000", "http://[::1]:8000", None),
        ("notify.example.com", "https://notify.example.com", None),
        ("127.0.0.1:8000", "https://notify.example.com", None),
        ("127.0.0.1:8000", None, "none"),
    ],
)
def test_its_own_pages_and_programs_may_write(host: str, origin: str | None, site: str | None) -> None:
    assert KNOWN.is_own_page(host, origin, site)


@pytest.mark.parametrize(
    ("host", "origin", "site"),
    [
        *(
            ("localhost:8000", origin, None)
            for origin in ("https://evil.example", "null", "", "file://", "localhost:8000")
        ),
        ("localhost:8000", "http://localhost:3000", None),
        ("localhost:8000", "http://localhost", None),
        ("localhost:8000", "http://localhost:8000.evil.example", None),
        ("localhost:8000", "chrome-extension://abcdef", None),
        *(("localhost:8000", None, site) for site in ("cross-site", "same-site", "", "Same-Origin", "x")),
        ("localhost:8000", "http://localhost:8000", "cross-site"),
        ("notify.example.com", "http://notify.example.com:8000", None),
    ],
)
def test_no_other_page_may_write(host: str, origin: str | None, site: str | None) -> None:
    assert not KNOWN.is_own_page(host, origin, site)


@pytest.mark.parametrize("value", ["*", "http://notifier.test", "a b", "a:0", "a:x", "-a", "a@b", "[::1", "☃.test"])
def test_what_is_no_host_is_no_setting(value: str) -> None:
    with pytest.raises(ValueError, match="is not a list of hosts"):
        parsers.hosts(value)


def test_a_host_has_one_form() -> None:
    assert parse_host("BÜCHER.example.:80") == Host("xn--bcher-kva.example", 80)
    assert parsers.hosts("::1, [::1]:9") == (Host("::1"), Host("::1", 9))


def test_what_is_reached_from_this_machine_alone() -> None:
    for host in ("127.0.0.1", "127.5.5.5", "::1", "localhost", "::ffff:127.0.0.1"):
        assert listens_on_loopback(host), host
    for host in ("0.0.0.0", "::", "192.0.2.1", "0", "fe80::1", "::ffff:192.0.2.1"):
        assert not listens_on_loopback(host), host

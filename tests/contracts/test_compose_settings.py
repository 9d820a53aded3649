"""docker-compose.yml: the settings and secrets that each service is given."""

import json
import re
from dataclasses import fields
from urllib.parse import urlsplit

import pytest
from sqlalchemy import make_url

from config.settings import Settings, read_settings
from notifier.storage.database_roles import APP, OWNER
from tests.support.containers import (
    FILE,
    NEEDED,
    OURS,
    SERVICES,
    WORKER_SERVICES,
    MissingVariableError,
    environment_of,
    interpolated,
)
from tests.support.paths import ROOT

SETTINGS = {entry.metadata["env"] for entry in fields(Settings)}
#: Variables that are a credential, or have one in them.
BROKER_SECRETS = {"REDIS_URL", "BROKER_URL", "NOTIFIER_SENTINEL_PASSWORD"}
PROVIDER_SECRETS = {"NOTIFIER_EMAIL", "NOTIFIER_SMS", "NOTIFIER_PUSH", "NOTIFIER_CHAT"}
DATABASE_SECRETS = {"DATABASE_URL", "NOTIFIER_MIGRATION_DATABASE_URL", "NOTIFIER_ADMIN_DATABASE_URL"}


OUR_SECRETS = {
    *DATABASE_SECRETS,
    *{"NOTIFIER_BOUNCES", "NOTIFIER_WEBHOOK_SECRET", "NOTIFIER_WEBHOOK_SHARED_SECRET", "NOTIFIER_SECRET_KEY"},
    *{"NOTIFIER_METRICS_TOKEN", "NOTIFIER_READER_PASSWORD"},
    *BROKER_SECRETS,
    *PROVIDER_SECRETS,
}


SENDING = {
    *{"DATABASE_URL", "NOTIFIER_WEBHOOK_SECRET", "NOTIFIER_WEBHOOK_SHARED_SECRET"},
    *{"NOTIFIER_SECRET_KEY", "NOTIFIER_METRICS_TOKEN"},
    *BROKER_SECRETS,
    *PROVIDER_SECRETS,
}


#: Each service → the secrets that it needs, also in the variables of others' programs.
ALLOWED: dict[str, set[str]] = {
    "postgres": {"POSTGRES_PASSWORD"},
    "redis": {"REDISCLI_AUTH"},
    "roles": DATABASE_SECRETS,
    "migrate": {"NOTIFIER_MIGRATION_DATABASE_URL"},
    "reader": {"NOTIFIER_ADMIN_DATABASE_URL", "NOTIFIER_READER_PASSWORD"},
    "api": SENDING,
    "worker-fresh": SENDING,
    "worker-retry": SENDING,
    "worker-clock": SENDING,
    "bounces": {"DATABASE_URL", "NOTIFIER_BOUNCES", "NOTIFIER_EMAIL"},
    "beat-1": BROKER_SECRETS,
    "beat-2": BROKER_SECRETS,
    "exporter": {"DATABASE_URL", "NOTIFIER_METRICS_TOKEN", *BROKER_SECRETS},
    "flower": {"FLOWER_BASIC_AUTH", *BROKER_SECRETS},
    "prometheus": {"NOTIFIER_METRICS_TOKEN"},
    "proxy": set(),
    "grafana": {"GF_SECURITY_ADMIN_PASSWORD", "NOTIFIER_READER_PASSWORD"},
}


#: Names that look like a secret's, wherever they come from.
SECRETIVE = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH$|_KEY$|_URL$|DSN")
#: Settings that look like a secret and are none.
HARMLESS = {"NOTIFIER_PUBLIC_URL", "NOTIFIER_AUTH", "NOTIFIER_FLOWER_URL", "NOTIFIER_GRAFANA_URL"}


# --- docker-compose.yml


@pytest.mark.parametrize("name", NEEDED)
def test_a_secret_has_no_default(name: str) -> None:
    with pytest.raises(MissingVariableError, match=rf"^{name}: .*\.env"):
        interpolated(FILE, {**NEEDED, name: ""})


def test_the_example_names_what_is_needed_and_gives_no_secret_away() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert {name for name in given if name in NEEDED} == NEEDED.keys()
    assert given.keys() <= NEEDED.keys() | SETTINGS
    assert not any(given.values()), "a value that somebody would leave as it is"


@pytest.mark.parametrize("service", OURS)
def test_variables_are_settings(service: str) -> None:
    environment = environment_of(service, NEEDED)
    unknown = {name for name in environment if not name.startswith("FLOWER_")} - SETTINGS
    assert not unknown
    settings = read_settings(environment, database="DATABASE_URL" in ALLOWED[service])
    postgres = SERVICES["postgres"]["environment"]
    for url, name, password in (
        (settings.database_url, APP, NEEDED["POSTGRES_APP_PASSWORD"]),
        (settings.migration_database_url, OWNER, NEEDED["POSTGRES_OWNER_PASSWORD"]),
        (settings.admin_database_url, postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"]),
    ):
        if url is not None:
            database = make_url(url)
            assert (database.host, database.database) == ("postgres", postgres["POSTGRES_DB"])
            assert (database.username, database.password) == (name, password)
    assert len({APP, OWNER, postgres["POSTGRES_USER"]}) == 3
    if "REDIS_URL" in environment:
        redis = urlsplit(settings.broker)
        assert (redis.hostname, redis.password) == ("redis", NEEDED["REDIS_PASSWORD"])
    assert settings.log_format == "json"


def test_there_is_a_row_for_each_service() -> None:
    assert ALLOWED.keys() == SERVICES.keys()


@pytest.mark.parametrize("service", ALLOWED)
def test_a_service_has_the_secrets_that_it_needs_and_no_others(service: str) -> None:
    everything = {**dict.fromkeys(SETTINGS, "x"), **NEEDED, "NOTIFIER_METRICS_ADDRESS": "0.0.0.0:9090"}
    environment = environment_of(service, everything)
    secret = {name for name in environment if name in OUR_SECRETS or SECRETIVE.search(name)} - HARMLESS
    assert secret == ALLOWED[service]
    # By whatever name: each secret is looked for in all that the service is told.
    theirs = {name for name, value in NEEDED.items() if value in json.dumps(environment)}
    by_name = {"REDIS_URL": "REDIS_PASSWORD", "REDISCLI_AUTH": "REDIS_PASSWORD"}
    by_name |= {"DATABASE_URL": "POSTGRES_APP_PASSWORD", "NOTIFIER_ADMIN_DATABASE_URL": "POSTGRES_PASSWORD"}
    by_name |= {"NOTIFIER_MIGRATION_DATABASE_URL": "POSTGRES_OWNER_PASSWORD"}
    by_name |= {"GF_SECURITY_ADMIN_PASSWORD": "GRAFANA_PASSWORD"}
    assert theirs == {by_name.get(name, name) for name in ALLOWED[service]} & NEEDED.keys()
    assert not any(value in json.dumps(SERVICES[service].get("command")) for value in NEEDED.values())


def test_whatever_looks_like_a_secret_among_the_settings_is_in_the_table() -> None:
    assert {name for name in SETTINGS if SECRETIVE.search(name)} - HARMLESS <= OUR_SECRETS


@pytest.mark.parametrize("service", ["api", *WORKER_SERVICES])
def test_every_setting_can_be_given(service: str) -> None:
    missing = SETTINGS - (OUR_SECRETS - ALLOWED[service]) - FILE["services"][service]["environment"].keys()
    assert not missing, "add it to x-settings in docker-compose.yml"
    given = environment_of(service, {**NEEDED, "NOTIFIER_EMAIL": "smtp://mail", "NOTIFIER_LOG_FORMAT": "console"})
    settings = read_settings(given)
    assert settings.email == ("smtp://mail",)
    assert settings.log_format == "console"
    assert settings.auth == "required"

"""Traces go to OpenTelemetry's collector, where OTEL_EXPORTER_OTLP_ENDPOINT names one.

The SDK reads its other variables (OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, OTEL_BSP_…) from the environment
itself. Its packages are optional: requirements-otel.txt.
"""

from importlib import import_module

from config.settings import Settings, SettingsError


def start_tracing(settings: Settings, process: str) -> None:
    """Send this process's spans to the collector, where one is set. `process`: "api", or a worker's name.

    Raises SettingsError where the packages are missing.
    """
    if settings.otlp_endpoint is None:
        return
    try:
        otlp = import_module("config.otlp")
    except ImportError as error:
        text = f"OTEL_EXPORTER_OTLP_ENDPOINT needs {error.name}: pip install -r requirements-otel.txt"
        raise SettingsError(text) from None
    otlp.start(process)

//! Traces by OTLP over HTTP, where affix was built with the feature `otlp` and the environment names a collector
//! (`OTEL_EXPORTER_OTLP_ENDPOINT`, as OpenTelemetry has it).

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

/// Sends what is left when it is dropped.
pub(super) struct Traces(SdkTracerProvider);

impl Drop for Traces {
    fn drop(&mut self) {
        // What the collector does not take in time is lost, and nothing else.
        let _ = self.0.shutdown();
    }
}

/// The layer that sends spans; `None` where no collector is named.
///
/// # Errors
/// When the variables cannot be understood.
pub(super) fn layer<S>() -> Result<Option<(impl Layer<S>, Traces)>, String>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let named = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ];
    if !named
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    {
        return Ok(None);
    }
    // The exporter's client takes the provider of the process; the registries' clients bring their own.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let exporter = SpanExporter::builder()
        .with_http()
        .build()
        .map_err(|error| error.to_string())?;
    let resource = Resource::builder().with_service_name("affix").build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("affix"));
    // The exporter's own requests are no spans, or it would trace itself.
    let spans = Targets::new().with_target("affix", LevelFilter::DEBUG);
    Ok(Some((layer.with_filter(spans), Traces(provider))))
}

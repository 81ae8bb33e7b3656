//! Traces by OTLP over HTTP, with the feature `otlp` and a collector in `OTEL_EXPORTER_OTLP_ENDPOINT`.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

/// The tracer provider. It sends the remaining spans when it is dropped.
pub(super) struct Traces(SdkTracerProvider);

impl Drop for Traces {
    fn drop(&mut self) {
        // Spans that the collector does not accept in time are lost.
        let _ = self.0.shutdown();
    }
}

/// Returns the layer that sends spans, or `None` if the environment names no collector.
///
/// # Errors
/// If the variables are malformed.
pub(super) fn layer<S>() -> Result<Option<(impl Layer<S>, Traces)>, String>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let variables = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ];
    if !variables
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    {
        return Ok(None);
    }
    // The exporter's client uses the crypto provider of the process. The registry clients have their own.
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
    // The requests of the exporter are not traced.
    let spans = Targets::new().with_target("affix", LevelFilter::DEBUG);
    Ok(Some((layer.with_filter(spans), Traces(provider))))
}

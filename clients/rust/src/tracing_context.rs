//! The context of OpenTelemetry in the headers of a call.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{Context, global, propagation::Injector};

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = HeaderName::from_bytes(key.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

/// Add the current context, in the form of the global propagator.
pub(crate) fn inject(headers: &mut HeaderMap) {
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&Context::current(), &mut Headers(headers));
    });
}

#[cfg(test)]
mod tests {
    use opentelemetry::{
        Key, KeyValue,
        baggage::BaggageExt as _,
        propagation::{Extractor, TextMapPropagator, text_map_propagator::FieldIter},
    };

    use super::*;

    /// Writes one member of the baggage.
    #[derive(Debug)]
    struct Baggage;

    impl TextMapPropagator for Baggage {
        fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
            if let Some(value) = context.baggage().get(Key::new("tenant")) {
                injector.set("baggage", format!("tenant={value}"));
            }
            injector.set("no name", "refused".to_owned());
        }

        fn extract_with_context(&self, context: &Context, _extractor: &dyn Extractor) -> Context {
            context.clone()
        }

        fn fields(&self) -> FieldIter<'_> {
            FieldIter::new(&[])
        }
    }

    /// The current context travels in the form of the global propagator.
    #[test]
    fn the_current_context_travels() {
        global::set_text_map_propagator(Baggage);
        let context = Context::current().with_baggage([KeyValue::new("tenant", "a")]);
        let _current = context.attach();
        let mut headers = HeaderMap::new();
        inject(&mut headers);
        assert_eq!(
            (headers.len(), &headers["baggage"]),
            (1, &HeaderValue::from_static("tenant=a"))
        );
    }
}

//! Kafka, where walmill was built without it: a config that names it says how to get it.

use std::convert::Infallible;

use serde::{Deserialize, Deserializer};

use super::broker::Delivery;

/// One `[[output.kafka]]`, which this build cannot have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config(Infallible);

impl Config {
    /// Its name, its streams and how they are delivered.
    #[must_use]
    pub fn delivery(&self) -> &Delivery {
        match self.0 {}
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "this walmill was built without Kafka; build one that has it with \
             `cargo build --release --features kafka`",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outputs {
        #[expect(dead_code, reason = "there can be none")]
        kafka: Vec<Config>,
    }

    #[test]
    fn a_config_that_names_kafka_says_how_to_get_it() {
        let config = "[[kafka]]\nname = 'a'\nstreams = ['orders']\nbrokers = ['a:1']";
        let error = toml::from_str::<Outputs>(config).unwrap_err();
        assert!(error.message().contains("--features kafka"), "{error}");
    }
}

//! Documents sent to one address that the operator named, such as a collector of traces.

use crate::error::HubError;
use crate::http::network;
use crate::url::Url;
use std::time::Duration;
use ureq::Agent;

/// From the first to the last byte of one document.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Sends documents to one address.
#[derive(Clone, Debug)]
pub struct Reporter {
    agent: Agent,
    url: Url,
}

impl Reporter {
    /// One for `base` with `path` behind it. Plain http is allowed: the operator chose the address.
    ///
    /// # Errors
    /// [`HubError::Setting`] if it is no http or https address.
    pub fn new(base: &str, path: &str) -> Result<Reporter, HubError> {
        let text = format!("{}/{}", base.trim_end_matches('/'), path.trim_start_matches('/'));
        let url = Url::parse(&text)
            .map_err(|why| HubError::Setting { setting: "otlp".to_owned(), why: why.to_string() })?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(MAX_TIME))
            .build()
            .new_agent();
        Ok(Reporter { agent, url })
    }

    /// Sends a JSON document. Blocks.
    ///
    /// # Errors
    /// [`HubError::Network`], also if it is not taken.
    pub fn post(&self, json: &str) -> Result<(), HubError> {
        let call = self.agent.post(self.url.request()).header("content-type", "application/json");
        let response = call.send(json).map_err(|error| network(&self.url, &error))?;
        match response.status().as_u16() {
            200..=299 => Ok(()),
            status => Err(network(&self.url, &format!("answered {status}"))),
        }
    }
}

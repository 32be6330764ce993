//! Reads the query APIs.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::EvidenceError;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A query API at a base URL.
#[derive(Debug, Clone)]
pub(super) struct Api {
    client: Client,
    base: String,
    token: Option<String>,
}

/// A position between two pages, whatever the API takes for one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Cursor {
    Text(String),
    Number(u64),
}

impl Cursor {
    fn as_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

impl Api {
    pub fn new(base: &str, token: Option<String>) -> Result<Self, EvidenceError> {
        let client = Client::builder().timeout(TIMEOUT).build().map_err(|error| EvidenceError {
            what: "query API".to_owned(),
            reason: format!("no HTTP client: {error}"),
        })?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), token })
    }

    /// One page from after the cursor on.
    pub async fn page<T: DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
        limit: usize,
        after: Option<&Cursor>,
    ) -> Result<T, EvidenceError> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(after.map(|cursor| ("after", cursor.as_text())));
        self.ask(what, self.client.get(self.url(path)).query(&query)).await
    }

    /// Sends a question as JSON.
    pub async fn post<T: DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
        question: &serde_json::Value,
    ) -> Result<T, EvidenceError> {
        self.ask(what, self.client.post(self.url(path)).json(question)).await
    }

    /// What a path tells of one thing; `None` where it does not know it.
    pub async fn find<T: DeserializeOwned>(
        &self,
        what: &str,
        path: &str,
        thing: (&str, &str),
    ) -> Result<Option<T>, EvidenceError> {
        let answer = self.send(what, self.client.get(self.url(path)).query(&[thing])).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        read(what, answer).await.map(Some)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        what: &str,
        request: RequestBuilder,
    ) -> Result<T, EvidenceError> {
        read(what, self.send(what, request).await?).await
    }

    async fn send(
        &self,
        what: &str,
        mut request: RequestBuilder,
    ) -> Result<Response, EvidenceError> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request.send().await.map_err(|error| {
            let kind = if error.is_timeout() { "no answer in time" } else { "no connection" };
            failed(what, format!("{kind}; is the query API running there?"))
        })
    }
}

async fn read<T: DeserializeOwned>(what: &str, answer: Response) -> Result<T, EvidenceError> {
    let status = answer.status();
    if !status.is_success() {
        let hint = match status.as_u16() {
            401 => "; give its token with --token-file",
            404 => "; the query API there does not serve it",
            _ => "",
        };
        return Err(failed(what, format!("answered {}{hint}", status.as_u16())));
    }
    let body = answer.bytes().await.map_err(|_| failed(what, "the answer broke off".to_owned()))?;
    serde_json::from_slice(&body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        failed(what, format!("its answer is not as expected at line {line}, column {column}"))
    })
}

fn failed(what: &str, reason: String) -> EvidenceError {
    EvidenceError { what: what.to_owned(), reason }
}

//! HTTP for whoever blocks.

use anyhow::{Context, Result};

pub struct Client {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
}

impl Client {
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // A connection that was idle may just be closed by the server.
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build()?;
        Ok(Self { runtime, client })
    }

    pub fn get(&self, url: &str) -> Result<String> {
        self.runtime.block_on(async {
            let answer = self.client.get(url).send().await?.error_for_status()?;
            answer.text().await.context("no answer")
        })
    }
}

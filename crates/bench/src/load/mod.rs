//! A load generator: one thread, many connections, each request unlike any other.
//!
//! A closed loop posts again as soon as a connection has its answer. An open loop posts at a
//! constant rate whatever the answers do, and measures from the moment a request was due, so that
//! a slow server cannot hide behind the requests it kept from being sent.

mod connection;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use jiff::Timestamp;
use mio::{Events, Poll, Token};
use serde::{Deserialize, Serialize};

use crate::bodies::{Kind, Template};
use connection::{Connection, Step};

/// Answers that are still out when the time is over are waited for no longer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where to post
    #[arg(long)]
    pub target: SocketAddr,
    /// Connections at a time
    #[arg(long, default_value_t = 256)]
    pub clients: usize,
    /// One connection for each request
    #[arg(long)]
    pub short: bool,
    /// What is posted
    #[arg(long, value_enum, default_value_t = Kind::Status)]
    pub body: Kind,
    /// Seconds at most
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Requests at most
    #[arg(long, default_value_t = u64::MAX)]
    pub requests: u64,
    /// Requests a second, whatever the answers do; without it, as many as are answered
    #[arg(long)]
    pub rate: Option<f64>,
    /// Instant to begin at, microseconds since 1970: in an open loop request `n` is due `n / rate`
    /// later
    #[arg(long, default_value_t = 0)]
    pub begin_at: u64,
    /// Number of the first request
    #[arg(long, default_value_t = 0)]
    pub first: u64,
}

impl Options {
    /// When it begins: what the messages say too.
    fn begin(&self) -> Result<Timestamp> {
        if self.begin_at == 0 {
            return Ok(Timestamp::now());
        }
        Ok(Timestamp::from_microsecond(i64::try_from(self.begin_at)?)?)
    }

    /// 256 clients, kept alive, as fast as they are answered.
    pub fn new(target: SocketAddr, body: Kind) -> Self {
        Self {
            target,
            clients: 256,
            short: false,
            body,
            seconds: 600.0,
            requests: u64::MAX,
            rate: None,
            begin_at: 0,
            first: 0,
        }
    }
}

/// What a run saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// Answered 200.
    pub ok: u64,
    /// Answered otherwise.
    pub refused: u64,
    /// Connections that broke, or never came to be.
    pub broken: u64,
    /// Due, and not posted for want of a connection that was free.
    pub unsent: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Of the answers 200, microseconds.
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// Of the same, from when a request was sent instead of due.
    pub sent_p99_us: u64,
    /// Of the other answers.
    pub refused_p50_us: u64,
    pub refused_p99_us: u64,
}

/// Runs and prints.
#[expect(clippy::print_stdout, reason = "the result")]
pub fn run(options: &Options) -> Result<()> {
    let seen = Load::new(options)?.run()?;
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

struct Load<'a> {
    options: &'a Options,
    poll: Poll,
    template: Template,
    connections: Vec<Connection>,
    /// Connections with nothing to do, in an open loop.
    idle: Vec<usize>,
    /// When requests were due that no connection was free for.
    waiting: VecDeque<Instant>,
    next: u64,
    latencies: Histogram<u64>,
    answers: Histogram<u64>,
    refusals: Histogram<u64>,
    broken: u64,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        ensure!(options.clients > 0, "--clients must be 1 or more");
        let poll = Poll::new()?;
        let connections =
            (0..options.clients).map(|index| Connection::new(options.target, index)).collect();
        Ok(Self {
            options,
            poll,
            template: Template::new(options.body, !options.short, options.begin()?),
            connections,
            idle: Vec::new(),
            waiting: VecDeque::new(),
            next: options.first,
            latencies: Histogram::new(3)?,
            answers: Histogram::new(3)?,
            refusals: Histogram::new(3)?,
            broken: 0,
        })
    }

    fn run(mut self) -> Result<Seen> {
        while let Some(wait) = self.options.begin_at.checked_sub(now_us()?).filter(|us| *us > 0) {
            std::thread::park_timeout(Duration::from_micros(wait));
        }
        let began = Instant::now();
        let until = began + Duration::from_secs_f64(self.options.seconds);
        let interval = self.options.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let mut due = began;
        match interval {
            Some(_) => self.idle = (0..self.connections.len()).collect(),
            None => (0..self.connections.len()).for_each(|index| self.post(index, began)),
        }
        let mut events = Events::with_capacity(1024);
        let mut last_answer = began;
        loop {
            let now = Instant::now();
            let over = now >= until || self.is_exhausted();
            if let Some(interval) = interval {
                while due <= now && due < until {
                    self.waiting.push_back(due);
                    due += interval;
                }
                while let (Some(at), Some(index)) = (self.waiting.front(), self.idle.last()) {
                    let (at, index) = (*at, *index);
                    self.waiting.pop_front();
                    self.idle.pop();
                    self.post(index, at);
                }
            }
            let busy = self.connections.iter().any(Connection::is_busy);
            if over && (!busy || now > until + PATIENCE) {
                break;
            }
            let wait = match interval {
                Some(_) if !over => due.saturating_duration_since(now),
                _ => Duration::from_millis(50),
            };
            self.poll.poll(&mut events, Some(wait))?;
            for event in &events {
                let Token(index) = event.token();
                if self.advance(index, over)? {
                    last_answer = Instant::now();
                }
            }
        }
        Ok(Seen {
            ok: self.latencies.len(),
            refused: self.refusals.len(),
            broken: self.broken,
            unsent: self.waiting.len() as u64,
            seconds: (last_answer - began).as_secs_f64(),
            p50_us: self.latencies.value_at_quantile(0.5),
            p99_us: self.latencies.value_at_quantile(0.99),
            p999_us: self.latencies.value_at_quantile(0.999),
            max_us: self.latencies.max(),
            sent_p99_us: self.answers.value_at_quantile(0.99),
            refused_p50_us: self.refusals.value_at_quantile(0.5),
            refused_p99_us: self.refusals.value_at_quantile(0.99),
        })
    }

    /// Whether every request has been posted that there may be.
    fn is_exhausted(&self) -> bool {
        self.next - self.options.first >= self.options.requests
    }

    /// Posts the next request, which was due at `at`.
    fn post(&mut self, index: usize, at: Instant) {
        if self.is_exhausted() {
            return;
        }
        let request = self.template.request(self.next);
        self.next += 1;
        if self.connections[index].post(&self.poll, request, at).is_err() {
            self.broken += 1;
            self.idle.push(index);
        }
    }

    /// Goes on with a connection; whether it got an answer.
    fn advance(&mut self, index: usize, over: bool) -> Result<bool> {
        let mut answered = false;
        loop {
            match self.connections[index].advance(self.options.short) {
                Step::Waiting => return Ok(answered),
                Step::Broken => {
                    self.broken += 1;
                }
                Step::Answered { status, due, sent } => {
                    answered = true;
                    let micros = (due.elapsed().as_micros() as u64).max(1);
                    if status == 200 {
                        self.latencies.record(micros)?;
                        self.answers.record((sent.elapsed().as_micros() as u64).max(1))?;
                    } else {
                        self.refusals.record(micros)?;
                    }
                }
            }
            if over {
                return Ok(answered);
            }
            if self.options.rate.is_some() {
                if let Some(at) = self.waiting.pop_front() {
                    self.post(index, at);
                } else {
                    self.idle.push(index);
                    return Ok(answered);
                }
            } else {
                self.post(index, Instant::now());
            }
        }
    }
}

/// Microseconds since 1970.
pub fn now_us() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64)
}

/// Runs a generator as a process of its own.
pub fn apart(options: &Options) -> Result<Seen> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg("load").args(["--target", &options.target.to_string()]);
    command.args(["--clients", &options.clients.to_string()]);
    command.args(["--seconds", &options.seconds.to_string()]);
    command.args(["--first", &options.first.to_string()]);
    command.args(["--begin-at", &options.begin_at.to_string()]);
    command.args(["--requests", &options.requests.to_string()]);
    command.args(["--body", options.body.name()]);
    if options.short {
        command.arg("--short");
    }
    if let Some(rate) = options.rate {
        command.args(["--rate", &rate.to_string()]);
    }
    let output = command.output().context("the load generator cannot be started")?;
    ensure!(
        output.status.success(),
        "the load generator failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

//! As much of PromQL as is needed to say which metrics and labels an expression names. Refuses
//! what it does not know, so that a slip of the pen is found.

use anyhow::{Context, Result, bail, ensure};

const AGGREGATIONS: [&str; 4] = ["sum", "max", "min", "count"];
const FUNCTIONS: [&str; 8] =
    ["rate", "increase", "changes", "histogram_quantile", "absent", "time", "vector", "hour"];
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

/// What an expression names.
#[derive(Debug, Default)]
pub struct Query {
    /// Metrics with their matchers.
    pub selectors: Vec<Selector>,
    /// Labels in `by (…)`, `on (…)` and their like.
    pub grouping: Vec<String>,
    by: Vec<String>,
    aggregates: bool,
}

/// A metric with its matchers.
#[derive(Debug)]
pub struct Selector {
    /// The metric.
    pub metric: String,
    /// Label and value of each matcher.
    pub matchers: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Number,
    Sign(char),
}

impl Query {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self> {
        let tokens = tokens(text)?;
        let mut query = Self::default();
        let mut open = Vec::new();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                Token::Sign(sign @ ('(' | '[')) => open.push(*sign),
                Token::Sign(')') => ensure!(open.pop() == Some('('), "`)` without `(`"),
                Token::Sign(']') => ensure!(open.pop() == Some('['), "`]` without `[`"),
                Token::Sign('{' | '}') => bail!("matchers without a metric"),
                Token::Word(_) if open.last() == Some(&'[') => {}
                Token::Word(word) => at = query.word(word, &tokens, at)?,
                Token::Text(_) => bail!("a text outside of matchers"),
                Token::Sign(_) | Token::Number => {}
            }
        }
        ensure!(open.is_empty(), "{open:?} is not closed");
        Ok(query)
    }

    /// Labels that its result can have, `of` telling those of a metric.
    pub fn result_labels(&self, of: impl Fn(&str) -> Vec<String>) -> Vec<String> {
        if self.aggregates {
            return self.by.clone();
        }
        self.selectors.iter().flat_map(|selector| of(&selector.metric)).collect()
    }

    fn word(&mut self, word: &str, tokens: &[Token], mut at: usize) -> Result<usize> {
        let called = tokens.get(at) == Some(&Token::Sign('('));
        if GROUPINGS.contains(&word) {
            ensure!(called, "{word} without labels");
            loop {
                at += 1;
                match tokens.get(at) {
                    Some(Token::Word(label)) => {
                        if word == "by" {
                            self.by.push(label.clone());
                        }
                        self.grouping.push(label.clone());
                    }
                    Some(Token::Sign(',')) => {}
                    Some(Token::Sign(')')) => return Ok(at + 1),
                    other => bail!("{word} names {other:?}"),
                }
            }
        }
        if AGGREGATIONS.contains(&word) {
            self.aggregates = true;
            return Ok(at);
        }
        if OPERATORS.contains(&word) {
            return Ok(at);
        }
        if called {
            ensure!(FUNCTIONS.contains(&word), "{word} is a function that this test does not know");
            return Ok(at);
        }
        let mut selector = Selector { metric: word.to_owned(), matchers: Vec::new() };
        if tokens.get(at) == Some(&Token::Sign('{')) {
            at = selector.read(tokens, at + 1)?;
        }
        self.selectors.push(selector);
        Ok(at)
    }
}

impl Selector {
    fn read(&mut self, tokens: &[Token], mut at: usize) -> Result<usize> {
        loop {
            match tokens.get(at) {
                Some(Token::Sign('}')) => return Ok(at + 1),
                Some(Token::Sign(',')) => at += 1,
                Some(Token::Word(label)) => {
                    let value = tokens[at + 1..].iter().position(|it| matches!(it, Token::Text(_)));
                    let value = at + 1 + value.context("a matcher without a value")?;
                    let operator = &tokens[at + 1..value];
                    let known = matches!(
                        operator,
                        [Token::Sign('=')] | [Token::Sign('!' | '='), Token::Sign('=' | '~')]
                    );
                    ensure!(known, "operator {operator:?}");
                    let Token::Text(text) = &tokens[value] else { bail!("no text") };
                    self.matchers.push((label.clone(), text.clone()));
                    at = value + 1;
                }
                other => bail!("matchers of {} hold {other:?}", self.metric),
            }
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '$';
        let length = if first.is_whitespace() {
            1
        } else if first == '"' {
            let end = rest[1..].find('"').context("a text without its end")?;
            tokens.push(Token::Text(rest[1..=end].to_owned()));
            end + 2
        } else if first.is_ascii_digit() {
            tokens.push(Token::Number);
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len())
        } else if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            end
        } else {
            ensure!("(){}[],=!~<>+-*/".contains(first), "unexpected `{first}`");
            tokens.push(Token::Sign(first));
            1
        };
        rest = &rest[length..];
    }
    Ok(tokens)
}

#[test]
fn metrics_labels_and_groupings_are_told_apart() -> Result<()> {
    let text = r#"histogram_quantile(0.99, sum by (le, a) (rate(x_bucket{b=~"1|2", c!="3"}[5m]))) > 2 unless y"#;
    let query = Query::parse(text)?;
    let metrics: Vec<_> = query.selectors.iter().map(|it| it.metric.as_str()).collect();
    assert_eq!(metrics, ["x_bucket", "y"]);
    let matchers: Vec<_> =
        query.selectors[0].matchers.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(matchers, [("b", "1|2"), ("c", "3")]);
    assert_eq!(query.grouping, ["le", "a"]);
    assert_eq!(query.result_labels(|_| vec!["z".to_owned()]), ["le", "a"]);
    Ok(())
}

#[test]
fn what_is_not_an_expression_is_refused() {
    for text in ["sum(x", "rat(x[5m])", "x{a}", "x{a=1}", "sum by x", "x)", "{a=\"b\"}", "x ? y"] {
        assert!(Query::parse(text).is_err(), "{text}");
    }
}

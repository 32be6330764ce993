//! What a PromQL expression names, and the labels of its result.

use std::convert::Infallible;

use anyhow::{Result, anyhow};
use promql_parser::label::Matcher;
use promql_parser::parser::token::{T_LAND, T_LOR, T_LUNLESS};
use promql_parser::parser::{BinaryExpr, Call, Expr, LabelModifier, VectorSelector, parse};
use promql_parser::util::{ExprVisitor, walk_expr};

/// What an expression names.
#[derive(Debug)]
pub struct Query {
    expr: Expr,
    /// Metrics with their matchers.
    pub selectors: Vec<VectorSelector>,
    /// Labels in `by (…)`, `on (…)` and their like.
    pub grouping: Vec<String>,
}

impl Query {
    /// Reads an expression, also one of a dashboard.
    pub fn parse(text: &str) -> Result<Self> {
        let expr = parse(&text.replace("$__rate_interval", "1m")).map_err(|it| anyhow!(it))?;
        let mut names = Names::default();
        let Ok(_) = walk_expr(&mut names, &expr);
        Ok(Self { expr, selectors: names.selectors, grouping: names.grouping })
    }

    /// Labels that its result can have, `of` telling those of a metric.
    pub fn result_labels(&self, of: &dyn Fn(&str) -> Vec<String>) -> Vec<String> {
        labels(&self.expr, of)
    }
}

#[derive(Default)]
struct Names {
    selectors: Vec<VectorSelector>,
    grouping: Vec<String>,
}

impl ExprVisitor for Names {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        let grouping = match expr {
            Expr::VectorSelector(selector) => {
                self.selectors.push(selector.clone());
                None
            }
            Expr::MatrixSelector(range) => {
                self.selectors.push(range.vs.clone());
                None
            }
            Expr::Aggregate(aggregate) => aggregate.modifier.as_ref(),
            Expr::Binary(binary) => binary.modifier.as_ref().and_then(|it| it.matching.as_ref()),
            _ => None,
        };
        if let Some(LabelModifier::Include(names) | LabelModifier::Exclude(names)) = grouping {
            self.grouping.extend(names.labels.iter().cloned());
        }
        Ok(true)
    }
}

fn labels(expr: &Expr, of: &dyn Fn(&str) -> Vec<String>) -> Vec<String> {
    match expr {
        Expr::VectorSelector(selector) => of(name(selector)),
        Expr::MatrixSelector(range) => of(name(&range.vs)),
        Expr::Paren(inner) => labels(&inner.expr, of),
        Expr::Unary(inner) => labels(&inner.expr, of),
        Expr::Subquery(inner) => labels(&inner.expr, of),
        Expr::Aggregate(aggregate) => match &aggregate.modifier {
            Some(LabelModifier::Include(kept)) => kept.labels.clone(),
            Some(LabelModifier::Exclude(dropped)) => {
                let all = labels(&aggregate.expr, of);
                all.into_iter().filter(|label| !dropped.labels.contains(label)).collect()
            }
            None => Vec::new(),
        },
        Expr::Binary(binary) => of_both(binary, of),
        Expr::Call(call) => of_call(call, of),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Vec::new(),
    }
}

fn of_both(binary: &BinaryExpr, of: &dyn Fn(&str) -> Vec<String>) -> Vec<String> {
    let (mut left, right) = (labels(&binary.lhs, of), labels(&binary.rhs, of));
    let filters = [T_LAND, T_LUNLESS].contains(&binary.op.id());
    if binary.op.id() == T_LOR || (left.is_empty() && !filters) {
        left.extend(right);
    }
    left
}

fn of_call(call: &Call, of: &dyn Fn(&str) -> Vec<String>) -> Vec<String> {
    let Some(vector) = call.args.args.last() else { return Vec::new() };
    match (call.func.name, &**vector) {
        ("absent", Expr::VectorSelector(selector)) => {
            selector.matchers.matchers.iter().map(|matcher| matcher.name.clone()).collect()
        }
        ("histogram_quantile", vector) => {
            labels(vector, of).into_iter().filter(|label| label != "le").collect()
        }
        (_, vector) => labels(vector, of),
    }
}

/// The metric that a selector names.
pub fn name(selector: &VectorSelector) -> &str {
    selector.name.as_deref().unwrap_or_default()
}

/// All matchers of a selector.
pub fn matchers(selector: &VectorSelector) -> impl Iterator<Item = &Matcher> {
    let matchers = &selector.matchers;
    matchers.matchers.iter().chain(matchers.or_matchers.iter().flatten())
}

#[test]
fn what_an_expression_names_and_what_comes_out_of_it_are_told_apart() -> Result<()> {
    let text = r#"histogram_quantile(0.99, sum by (le, a) (rate(x_bucket{b=~"1|2", c!="3"}[$__rate_interval]))) > 2 unless y"#;
    let query = Query::parse(text)?;
    let metrics: Vec<_> = query.selectors.iter().map(name).collect();
    assert_eq!(metrics, ["x_bucket", "y"]);
    let matchers: Vec<_> =
        matchers(&query.selectors[0]).map(|it| (&*it.name, &*it.value)).collect();
    assert_eq!(matchers, [("b", "1|2"), ("c", "3")]);
    assert_eq!(query.grouping, ["le", "a"]);
    let result = |text: &str| -> Result<Vec<String>> {
        Ok(Query::parse(text)?.result_labels(&|metric| vec![format!("{metric}_label")]))
    };
    assert_eq!(result(text)?, ["a"]);
    assert_eq!(result("time() - max(x)")?, [""; 0]);
    assert_eq!(result("time() - x")?, ["x_label"]);
    assert_eq!(result("sum without (x_label) (x) or y")?, ["y_label"]);
    assert_eq!(result(r#"absent(x{group="1"})"#)?, ["group"]);
    Ok(())
}

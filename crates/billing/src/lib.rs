//! Consumes CDRs, keeps the ledger and its aggregates, answers usage questions.

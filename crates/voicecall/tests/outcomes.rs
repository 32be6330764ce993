//! What the calls of the samples came to.

mod common;

use std::fmt::Write as _;

use tollgate_voicecall::Record;
use tollgate_voicecall::codes::outcome;

#[test]
fn the_outcome_of_every_sample_is_as_written_down() {
    let mut table = String::new();
    for (name, body) in common::samples() {
        for record in common::records(&body) {
            let Record::Cdr(cdr) = record else { continue };
            let found = outcome(&cdr, None);
            let index = cdr.provenance.unwrap().index;
            writeln!(
                table,
                "{name} {index}: A {:?}, B {:?}, {:?}, {}, {}",
                found.a_leg, found.b_leg, found.reason, found.group, found.description
            )
            .unwrap();
        }
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("outcomes", table));
}

//! What a reader with the old schema would stumble over in the new one.

use crate::contract::{Contract, Definition};

/// Every promise that `new` breaks, one sentence each.
pub fn breaks(old: &Contract, new: &Contract) -> Vec<String> {
    let mut found = Vec::new();
    for (name, before) in &old.types {
        match new.types.get(name) {
            None => found.push(format!("{} {name} is gone", before.kind)),
            Some(after) if after.kind != before.kind => {
                found.push(format!("{name} was {}, now {}", before.kind, after.kind));
            }
            Some(after) => compare(name, before, after, &mut found),
        }
    }
    found
}

fn compare(name: &str, before: &Definition, after: &Definition, found: &mut Vec<String>) {
    for (&number, old) in &before.members {
        let Some(new) = after.members.get(&number) else {
            if !after.reserves(number) {
                found.push(format!("{name} {number} {} is gone: reserve its number", old.name));
            }
            if !after.reserved_names.contains(&old.name) {
                found.push(format!("{name} {number} {} is gone: reserve its name", old.name));
            }
            continue;
        };
        if new.nature != old.nature {
            found.push(format!("{name} {number} was {}, now {}", old.nature, new.nature));
        }
        // The bytes do not care, but the JSON mapping and generated code do.
        if new.name != old.name {
            found.push(format!("{name} {number} was named {}, now {}", old.name, new.name));
        }
    }
    for &(first, last) in &before.reserved_numbers {
        if let Some(number) = (first..=last).find(|&number| !after.reserves(number)) {
            found.push(format!("{name} {number} is no longer reserved"));
        }
    }
    for old in before.reserved_names.difference(&after.reserved_names) {
        found.push(format!("{name} no longer reserves the name {old}"));
    }
}

#[cfg(test)]
mod tests {
    use prost_types::descriptor_proto::ReservedRange;
    use prost_types::enum_descriptor_proto::EnumReservedRange;
    use prost_types::field_descriptor_proto::{Label, Type};
    use prost_types::{
        DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    };

    use super::*;
    use crate::descriptors;

    fn message<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut DescriptorProto {
        let mut messages = set.file.iter_mut().flat_map(|file| &mut file.message_type);
        messages.find(|message| message.name() == name).unwrap()
    }

    fn enumeration<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut EnumDescriptorProto {
        let mut enums = set.file.iter_mut().flat_map(|file| &mut file.enum_type);
        enums.find(|enumeration| enumeration.name() == name).unwrap()
    }

    fn field<'a>(set: &'a mut FileDescriptorSet, name: &str) -> &'a mut FieldDescriptorProto {
        let fields = &mut message(set, "CallEvent").field;
        fields.iter_mut().find(|field| field.name() == name).unwrap()
    }

    /// What breaks when the present schema is changed like this.
    fn after(change: impl FnOnce(&mut FileDescriptorSet)) -> Vec<String> {
        let old = descriptors();
        let mut new = old.clone();
        change(&mut new);
        assert_ne!(new, old, "the change changes nothing");
        breaks(&Contract::of(&old), &Contract::of(&new))
    }

    #[test]
    fn nothing_breaks_where_nothing_changes() {
        let contract = Contract::of(&descriptors());
        assert_eq!(breaks(&contract, &contract), Vec::<String>::new());
    }

    #[test]
    fn a_changed_number_is_a_break() {
        let found = after(|set| field(set, "state_code").number = Some(99));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("10 state_code is gone"), "{found:?}");
    }

    #[test]
    fn swapped_numbers_are_a_break() {
        let found = after(|set| {
            field(set, "caller").number = Some(8);
            field(set, "called").number = Some(7);
        });
        assert!(
            found.iter().any(|text| text.contains("7 was named caller, now called")),
            "{found:?}"
        );
    }

    #[test]
    fn a_changed_type_is_a_break() {
        let found = after(|set| field(set, "state_code").set_type(Type::Int64));
        assert_eq!(found, ["tollgate.v1.CallEvent 10 was optional int32, now optional int64"]);
        let found = after(|set| {
            field(set, "occurred_at").type_name = Some(".tollgate.v1.Provenance".to_owned());
        });
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_changed_presence_is_a_break() {
        let found = after(|set| field(set, "state_code").proto3_optional = Some(false));
        assert_eq!(found.len(), 1, "{found:?}");
        let found = after(|set| field(set, "session_id").set_label(Label::Repeated));
        assert_eq!(found, ["tollgate.v1.CallEvent 3 was string, now repeated string"]);
    }

    #[test]
    fn a_changed_name_is_a_break() {
        let found = after(|set| field(set, "caller").name = Some("calling".to_owned()));
        assert_eq!(found, ["tollgate.v1.CallEvent 7 was named caller, now calling"]);
    }

    #[test]
    fn a_removed_field_is_a_break_unless_number_and_name_are_reserved() {
        let remove = |set: &mut FileDescriptorSet| {
            message(set, "CallEvent").field.retain(|field| field.name() != "digits");
        };
        let range = ReservedRange { start: Some(9), end: Some(10) };
        assert_eq!(after(remove).len(), 2);
        let found = after(|set| {
            remove(set);
            message(set, "CallEvent").reserved_range.push(range);
        });
        assert_eq!(found, ["tollgate.v1.CallEvent 9 digits is gone: reserve its name"]);
        let found = after(|set| {
            remove(set);
            message(set, "CallEvent").reserved_range.push(range);
            message(set, "CallEvent").reserved_name.push("digits".to_owned());
        });
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn a_changed_or_removed_enum_value_is_a_break() {
        let found = after(|set| enumeration(set, "EventType").value[1].number = Some(40));
        assert_eq!(found.len(), 2, "{found:?}");
        let found = after(|set| {
            enumeration(set, "EventType").value[1].name = Some("EVENT_TYPE_INBOUND".to_owned());
        });
        assert_eq!(found.len(), 1, "{found:?}");
        let found = after(|set| drop(enumeration(set, "Party").value.pop()));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_removed_message_or_enum_is_a_break() {
        let remove = |set: &mut FileDescriptorSet| {
            for file in &mut set.file {
                file.message_type.retain(|message| message.name() != "Leg");
                file.enum_type.retain(|enumeration| enumeration.name() != "LegSide");
            }
        };
        assert_eq!(
            after(remove),
            ["message tollgate.v1.Leg is gone", "enum tollgate.v1.LegSide is gone"]
        );
    }

    #[test]
    fn what_was_reserved_stays_reserved() {
        let mut old = descriptors();
        let leg = message(&mut old, "Leg");
        leg.reserved_range.push(ReservedRange { start: Some(50), end: Some(60) });
        leg.reserved_name.push("trunk".to_owned());
        let party = enumeration(&mut old, "Party");
        party.reserved_range.push(EnumReservedRange { start: Some(50), end: Some(59) });
        let old = Contract::of(&old);
        assert_eq!(breaks(&old, &old), Vec::<String>::new());
        assert_eq!(breaks(&old, &Contract::of(&descriptors())).len(), 3);
    }

    #[test]
    fn additions_are_free_and_show_in_the_text() {
        let old = Contract::of(&descriptors());
        let mut set = descriptors();
        let mut added = field(&mut set, "caller").clone();
        added.name = Some("trunk".to_owned());
        added.number = Some(17);
        message(&mut set, "CallEvent").field.push(added);
        let mut value = enumeration(&mut set, "Party").value[1].clone();
        value.name = Some("PARTY_NETWORK".to_owned());
        value.number = Some(4);
        enumeration(&mut set, "Party").value.push(value);
        let new = Contract::of(&set);
        assert_eq!(breaks(&old, &new), Vec::<String>::new());
        assert_ne!(old.to_string(), new.to_string());
        assert!(new.to_string().contains("  17 trunk optional string\n"));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error() {
        for text in [
            "  1 a string",
            "message",
            "message a.B\n  x y string",
            "message a.B\n  1 y",
            "message a.B\n  1 a string\n  1 b string",
        ] {
            assert!(Contract::parse(text).is_err(), "{text}");
        }
    }
}

//! What a schema promises, as a text that a person can read in a diff.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const PACKAGE: &str = "tollgate.v1";
const HEAD: &str = "\
# Every field and enum value of package tollgate.v1. Lines are added, never changed: see
# crates/schema/tests/compatibility. Written by UPDATE_SCHEMA=1, not by hand.
";

/// A package's messages and enums by full name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contract {
    pub types: BTreeMap<String, Definition>,
}

/// A message or an enum: its members by number, and what it has reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// `message` or `enum`.
    pub kind: String,
    pub members: BTreeMap<i32, Member>,
    /// Inclusive ranges.
    pub reserved_numbers: BTreeSet<(i32, i32)>,
    pub reserved_names: BTreeSet<String>,
}

/// A field, or an enum value, which has a name only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// Presence and type, such as `optional string`; of an enum value `value`.
    pub nature: String,
}

impl Definition {
    fn new(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            members: BTreeMap::new(),
            reserved_numbers: BTreeSet::new(),
            reserved_names: BTreeSet::new(),
        }
    }

    pub fn reserves(&self, number: i32) -> bool {
        self.reserved_numbers.iter().any(|&(first, last)| (first..=last).contains(&number))
    }
}

impl Contract {
    /// Reads it from descriptors.
    pub fn of(descriptors: &FileDescriptorSet) -> Self {
        let mut contract = Self::default();
        for file in descriptors.file.iter().filter(|file| file.package() == PACKAGE) {
            for message in &file.message_type {
                contract.add_message(PACKAGE, message);
            }
            for enumeration in &file.enum_type {
                contract.add_enum(PACKAGE, enumeration);
            }
        }
        contract
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        let mut definition = Definition::new("message");
        for field in &message.field {
            let member = Member { name: field.name().to_owned(), nature: nature(message, field) };
            definition.members.insert(field.number(), member);
        }
        // The end is exclusive for messages, and inclusive for enums.
        definition.reserved_numbers =
            message.reserved_range.iter().map(|range| (range.start(), range.end() - 1)).collect();
        definition.reserved_names = message.reserved_name.iter().cloned().collect();
        for nested in &message.nested_type {
            self.add_message(&name, nested);
        }
        for nested in &message.enum_type {
            self.add_enum(&name, nested);
        }
        self.types.insert(name, definition);
    }

    fn add_enum(&mut self, scope: &str, enumeration: &EnumDescriptorProto) {
        let mut definition = Definition::new("enum");
        for value in &enumeration.value {
            let member = Member { name: value.name().to_owned(), nature: "value".to_owned() };
            definition.members.insert(value.number(), member);
        }
        definition.reserved_numbers =
            enumeration.reserved_range.iter().map(|range| (range.start(), range.end())).collect();
        definition.reserved_names = enumeration.reserved_name.iter().cloned().collect();
        self.types.insert(format!("{scope}.{}", enumeration.name()), definition);
    }

    /// Reads its own text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut contract = Self::default();
        let mut open: Option<(String, Definition)> = None;
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let wrong = || format!("cannot read the contract's line: {line}");
            let words: Vec<&str> = line.split_whitespace().collect();
            if !line.starts_with(' ') {
                let [kind, name] = words[..] else { return Err(wrong()) };
                contract.types.extend(open.replace((name.to_owned(), Definition::new(kind))));
                continue;
            }
            let (_, definition) = open.as_mut().ok_or_else(wrong)?;
            let number = |text: &str| text.parse::<i32>().map_err(|_| wrong());
            match words[..] {
                ["reserved", "name", name] => {
                    definition.reserved_names.insert(name.to_owned());
                }
                ["reserved", first, "to", last] => {
                    definition.reserved_numbers.insert((number(first)?, number(last)?));
                }
                [at, name, ref nature @ ..] if !nature.is_empty() => {
                    let member = Member { name: name.to_owned(), nature: nature.join(" ") };
                    if definition.members.insert(number(at)?, member).is_some() {
                        return Err(wrong());
                    }
                }
                _ => return Err(wrong()),
            }
        }
        contract.types.extend(open);
        Ok(contract)
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        for (name, definition) in &self.types {
            writeln!(f, "\n{} {name}", definition.kind)?;
            for (number, member) in &definition.members {
                writeln!(f, "  {number} {} {}", member.name, member.nature)?;
            }
            for (first, last) in &definition.reserved_numbers {
                writeln!(f, "  reserved {first} to {last}")?;
            }
            for name in &definition.reserved_names {
                writeln!(f, "  reserved name {name}")?;
            }
        }
        Ok(())
    }
}

/// Presence and type of a field.
fn nature(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
    let presence = match (field.label(), oneof) {
        (Label::Repeated, _) => "repeated ".to_owned(),
        (Label::Required, _) => "required ".to_owned(),
        (Label::Optional, Some(index)) => {
            format!("oneof {} ", message.oneof_decl[index as usize].name())
        }
        (Label::Optional, None) if field.proto3_optional() => "optional ".to_owned(),
        (Label::Optional, None) => String::new(),
    };
    let type_name = match field.r#type() {
        Type::Message | Type::Enum | Type::Group => field.type_name().trim_start_matches('.'),
        Type::Double => "double",
        Type::Float => "float",
        Type::Int64 => "int64",
        Type::Uint64 => "uint64",
        Type::Int32 => "int32",
        Type::Fixed64 => "fixed64",
        Type::Fixed32 => "fixed32",
        Type::Bool => "bool",
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Uint32 => "uint32",
        Type::Sfixed32 => "sfixed32",
        Type::Sfixed64 => "sfixed64",
        Type::Sint32 => "sint32",
        Type::Sint64 => "sint64",
    };
    format!("{presence}{type_name}")
}

//! Damage to the structure of texts: JSON, TOML and lines of JSON.

use std::fmt::Write;

use serde_json::Value;

use crate::bytes::{LARGEST, nested, strange_number};
use crate::random::Random;

/// A structured text whose keys may repeat and whose scalars may be any text.
#[derive(Debug, Clone)]
enum Node {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    /// A scalar, which is printed literally.
    Scalar(String),
}

/// Form of a structured text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One JSON value.
    Json,
    /// A JSON value on each line.
    JsonLines,
    Toml,
}

/// Damages the structure of a text: removes, repeats and misspells keys, and inserts values of other types and
/// unusual sizes. Returns whether the text has the form.
pub(crate) fn damage_structure(bytes: &mut Vec<u8>, form: Form, random: &mut Random) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let damaged = match form {
        Form::Json => read_json(text).map(|node| changed(node, random).json()),
        Form::Toml => toml::from_str::<Value>(text).ok().map(|value| changed(of_value(value), random).toml()),
        Form::JsonLines => {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let at = random.below(lines.len());
            let line = lines.get(at).and_then(|line| read_json(line)).map(|node| changed(node, random).json());
            line.map(|line| {
                lines[at] = line;
                lines.join("\n") + "\n"
            })
        }
    };
    damaged.map(|text| *bytes = text.into_bytes()).is_some()
}

fn read_json(text: &str) -> Option<Node> {
    serde_json::from_str(text).ok().map(of_value)
}

fn of_value(value: Value) -> Node {
    match value {
        Value::Object(fields) => Node::Object(fields.into_iter().map(|(k, v)| (k, of_value(v))).collect()),
        Value::Array(items) => Node::Array(items.into_iter().map(of_value).collect()),
        scalar => Node::Scalar(scalar.to_string()),
    }
}

fn changed(mut node: Node, random: &mut Random) -> Node {
    for _ in 0..*random.pick(&[1, 1, 1, 2, 4]) {
        let donor = node.any(random).clone();
        let place = node.any(random);
        change(place, donor, random);
    }
    node
}

impl Node {
    /// Returns a node at or below this one, each with the same probability.
    fn any(&mut self, random: &mut Random) -> &mut Self {
        let mut at = random.below(self.count());
        self.nth(&mut at).unwrap_or_else(|| unreachable!("the number is below the count"))
    }

    fn count(&self) -> usize {
        1 + match self {
            Self::Object(fields) => fields.iter().map(|(_, v)| v.count()).sum(),
            Self::Array(items) => items.iter().map(Self::count).sum(),
            Self::Scalar(_) => 0,
        }
    }

    fn nth(&mut self, at: &mut usize) -> Option<&mut Self> {
        if *at == 0 {
            return Some(self);
        }
        *at -= 1;
        match self {
            Self::Object(fields) => fields.iter_mut().find_map(|(_, v)| v.nth(at)),
            Self::Array(items) => items.iter_mut().find_map(|v| v.nth(at)),
            Self::Scalar(_) => None,
        }
    }

    fn json(&self) -> String {
        self.inline(":")
    }

    /// Prints TOML in which everything but the outermost table is inline.
    fn toml(&self) -> String {
        let Self::Object(fields) = self else { return format!("value = {}\n", self.inline(" = ")) };
        let mut out = String::new();
        for (key, value) in fields {
            writeln!(out, "{} = {}", quoted(key), value.inline(" = "))
                .unwrap_or_else(|_| unreachable!("a String takes all"));
        }
        out
    }

    fn inline(&self, is: &str) -> String {
        match self {
            Self::Object(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(k, v)| format!("{}{is}{}", quoted(k), v.inline(is))).collect();
                format!("{{{}}}", fields.join(","))
            }
            Self::Array(items) => format!("[{}]", items.iter().map(|v| v.inline(is)).collect::<Vec<_>>().join(",")),
            Self::Scalar(text) => text.clone(),
        }
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn change(node: &mut Node, donor: Node, random: &mut Random) {
    let which = random.below(12);
    match node {
        Node::Object(fields) if which < 7 && !fields.is_empty() => {
            let at = random.below(fields.len());
            match which {
                0 | 1 => drop(fields.remove(at)),
                2 => fields.push(fields[at].clone()),
                3 => fields[at].0 = strange_text(random),
                4 => fields[at].1 = donor,
                5 => fields.insert(at, (strange_text(random), donor)),
                _ => {
                    let many = (LARGEST / 4 / donor.inline(":").len().max(8)).min(*random.pick(&[100, 5000]));
                    fields.extend((0..many).map(|n| (format!("c{n}"), donor.clone())));
                }
            }
        }
        Node::Array(items) if which < 5 && !items.is_empty() => {
            let at = random.below(items.len());
            match which {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                2 => items[at] = donor,
                3 => items.reverse(),
                _ => items.clear(),
            }
        }
        other => *other = strange_value(donor, random),
    }
}

fn strange_value(donor: Node, random: &mut Random) -> Node {
    match random.below(10) {
        0 => donor,
        1 => Node::Scalar("null".to_owned()),
        2 => Node::Scalar((*random.pick(&["true", "false"])).to_owned()),
        3 | 4 => Node::Scalar(strange_number(random)),
        5 => Node::Array(vec![donor]),
        6 => Node::Object(vec![(strange_text(random), donor)]),
        7 => Node::Scalar(nested(random)),
        _ => Node::Scalar(quoted(&strange_text(random))),
    }
}

/// Unusual names of columns and types, paths and times.
fn strange_text(random: &mut Random) -> String {
    let fixed = [
        "",
        ".",
        "..",
        "../../elsewhere",
        "/elsewhere",
        "a/b",
        "a=b",
        "%2e%2e%2f",
        "_hidden",
        ".hidden",
        "\u{0}",
        "\u{1b}[31m",
        "\u{202e}",
        "İ",
        "id",
        "ID",
        "seq",
        "day",
        "decimal(38,65535)",
        "decimal(4000000000,-1)",
        "struct<a:struct<>>",
        "timestamp(99)",
        "0000-00-00",
        "+262143-12-31T23:59:60Z",
        "-99999-01-01",
        "SELECT * FROM s",
        "zstd",
        "*",
        "{schema}",
    ];
    match random.below(12) {
        0 => "x".repeat(*random.pick(&[256, 5000, 200_000])),
        1 => nested(random),
        2 => strange_number(random),
        3 => "a:".repeat(2000),
        _ => (*random.pick(&fixed)).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_its_form_where_nothing_is_changed() {
        let json = r#"{"b":[1,2.50,null],"a":{"x":"y"}}"#;
        let node = read_json(json).expect("the JSON is readable");
        assert_eq!(
            serde_json::from_str::<Value>(&node.json()).expect("the JSON is valid"),
            serde_json::from_str::<Value>(json).expect("the JSON is valid")
        );
        let toml = "a = 1\n[b]\nc = [{d = 'e'}]\n";
        let value: Value = toml::from_str(toml).expect("the TOML is valid");
        assert_eq!(toml::from_str::<Value>(&of_value(value.clone()).toml()).expect("the TOML is valid"), value);
    }

    #[test]
    fn every_form_is_damaged_and_others_are_left_alone() {
        for (form, text) in
            [(Form::Json, "{\"a\":[1]}"), (Form::JsonLines, "{\"a\":1}\n{\"a\":2}\n"), (Form::Toml, "a = 1\n")]
        {
            let mut different = 0;
            for n in 0..100 {
                let mut bytes = text.as_bytes().to_vec();
                assert!(damage_structure(&mut bytes, form, &mut Random::of_input(1, "node", n)), "{form:?}");
                different += usize::from(bytes != text.as_bytes());
            }
            assert!(different > 80, "{form:?}: {different}");
        }
        assert!(!damage_structure(&mut b"\xff{".to_vec(), Form::Json, &mut Random::of_input(1, "node", 0)));
    }
}

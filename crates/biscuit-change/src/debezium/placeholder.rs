//! Decoded values that are the placeholder for unchanged values.

use biscuit_merge::internal::UnchangedPlaceholder;

use crate::values::text_value::TextValue;

/// Returns whether a decoded value is the placeholder: the text, the bytes, the bytes encoded as text, a list with the
/// text as its only item, or a list of the bytes.
pub(crate) fn is_placeholder(placeholder: &UnchangedPlaceholder, cell: &TextValue) -> bool {
    let bytes = placeholder.bytes();
    match cell {
        TextValue::Text(t) => placeholder.is_text(t) || placeholder.is_encoded(t),
        TextValue::Bytes(b) => !b.is_empty() && b == bytes,
        TextValue::List(items) => match items.as_slice() {
            [TextValue::Text(t)] => placeholder.is_text(t),
            items => {
                let byte = |(c, b): (&TextValue, &u8)| matches!(c, TextValue::Int(i) if *i == i64::from(*b));
                !items.is_empty() && items.len() == bytes.len() && items.iter().zip(bytes).all(byte)
            }
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use biscuit_merge::PLACEHOLDER;

    use super::*;

    #[test]
    fn placeholder_is_recognized_as_text_bytes_and_list() {
        let p = UnchangedPlaceholder::new(None).unwrap();
        assert!(
            p.may_match("\"__debezium_unavailable_value\"")
                && p.may_match("\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"")
        );
        assert!(!p.may_match("\"__debezium_unavailable_valu\"") && !p.may_match("95"));
        assert!(is_placeholder(&p, &TextValue::List(vec![TextValue::Text(PLACEHOLDER.into())])));
        assert!(is_placeholder(&p, &TextValue::List(PLACEHOLDER.bytes().map(|b| TextValue::Int(b.into())).collect())));
    }

    #[test]
    fn custom_and_hexadecimal_placeholders_are_recognized() {
        let custom = UnchangedPlaceholder::new(Some("n/a")).unwrap();
        assert!(custom.may_match("\"n/a\"") && !custom.may_match("\"__debezium_unavailable_value\""));
        let hex = UnchangedPlaceholder::new(Some("hex:00ff")).unwrap();
        assert!(
            is_placeholder(&hex, &TextValue::Bytes(vec![0, 255]))
                && hex.may_match("\"AP8=\"")
                && hex.may_match("\"00ff\"")
        );
        assert!(!is_placeholder(&hex, &TextValue::Text("00fe".into())));
        assert!(!is_placeholder(&UnchangedPlaceholder::new(Some("")).unwrap(), &TextValue::Text(String::new())));
        for bad in ["hex:", "hex:0g", "hex:0"] {
            assert_eq!(UnchangedPlaceholder::new(Some(bad)).unwrap_err().code(), "InvalidPlaceholder", "{bad}");
        }
    }
}

//! Policies, and the rows after their treatments.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use biscuit_pii::keys::{KeyBytes, RootKeys, WrappingKeys};
use biscuit_pii::tokens::MemoryStore;
use biscuit_pii::treatment::ColumnTreatment;
use biscuit_pii::{EntityType, PiiContext, Policy, Protector};

use crate::tokens::access;

fn roots() -> RootKeys {
    RootKeys::new(1, BTreeMap::from([(1, KeyBytes::new([1; 32]))])).expect("the keys are good")
}

fn means(store: &Arc<MemoryStore>) -> PiiContext {
    PiiContext::new()
        .with_roots(roots())
        .with_store(store.clone())
        .with_provider(Arc::new(WrappingKeys::in_memory().expect("the keys are good")))
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn customers() -> RecordBatch {
    let street = texts(&[Some("Main St 1"), Some("Elm St 2"), None]);
    let city = texts(&[Some("Rome"), Some("Oslo"), None]);
    let address = StructArray::from(vec![
        (Arc::new(Field::new("street", DataType::Utf8, true)), street),
        (Arc::new(Field::new("city", DataType::Utf8, true)), city),
    ]);
    let phones = Fields::from(vec![Field::new("number", DataType::Utf8, true)]);
    let numbers = StructArray::new(phones.clone(), vec![texts(&[Some("+49 30 901820"), Some("555"), Some("")])], None);
    let item = Arc::new(Field::new_list_field(DataType::Struct(phones), true));
    let phones = ListArray::new(item, OffsetBuffer::from_lengths([2, 0, 1]), Arc::new(numbers), None);
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        ("ssn", texts(&[Some("123-45-6789"), None, Some("")])),
        ("email", texts(&[Some("a@b.c"), Some("d@e.f"), None])),
        ("bio", texts(&[Some("write to a@b.com"), Some("nothing"), None])),
        ("tax", Arc::new(Int64Array::from(vec![Some(912_345_678), None, Some(7)]))),
        ("address", Arc::new(address)),
        ("phones", Arc::new(phones)),
    ])
    .expect("the rows are made")
}

fn shown(rows: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let column = arrow::compute::cast(rows.column_by_name(column).expect("the rows are made"), &DataType::Utf8)
        .expect("the rows are made");
    column.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

#[tokio::test]
async fn columns_are_treated_by_policy_and_other_columns_remain() {
    let policy = Policy::parse(
        r#"
        subject = "id"
        [columns]
        ssn = { tokenize = { kind = "ff1" } }
        email = { encrypt = { key = "subject" } }
        bio = "redact"
        tax = { tokenize = { kind = "keyed", namespace = "tax" } }
        "address.street" = "remove"
        "address.city" = { encrypt = { key = "message" } }
        "phones.number" = { partial = { last = 2 } }
        "#,
    )
    .unwrap();
    let store = Arc::new(MemoryStore::new());
    let protector = Protector::new(&policy, "customer", [], &means(&store)).unwrap();
    let before = customers();
    let protected = protector.apply(&before).await.unwrap();
    let rows = &protected.rows;
    let empty = protector.apply(&RecordBatch::new_empty(before.schema())).await.unwrap().rows;
    assert_eq!(rows.schema(), empty.schema(), "an empty batch has the same columns");
    assert_eq!(rows.column(0), before.column(0));
    assert_eq!(shown(rows, "bio"), [Some("write to <EMAIL_ADDRESS>".into()), Some("nothing".into()), None]);
    assert_eq!(protected.columns["bio"].found, BTreeMap::from([(EntityType::EMAIL_ADDRESS, 1)]));
    let tax = shown(rows, "tax");
    assert!(tax[0].as_ref().unwrap().starts_with("tok1_") && tax[1].is_none(), "{tax:?}");
    let address = rows.column_by_name("address").unwrap().as_struct();
    assert_eq!(address.fields().len(), 1);
    assert_eq!(
        address.column_by_name("city").unwrap().data_type(),
        &DataType::Utf8,
        "values inside of nested columns remain text"
    );
    let phones = rows.column_by_name("phones").unwrap().as_list::<i32>();
    let numbers = phones.values().as_struct().column(0).as_string::<i32>();
    assert_eq!(numbers.iter().flatten().collect::<Vec<_>>(), ["+** ** ****20", "***", ""]);
    assert_eq!(phones.value_offsets(), [0, 2, 2, 3]);
    assert_eq!(rows.column_by_name("email").unwrap().data_type(), &DataType::Binary);

    let kinds = BTreeMap::from([("tax".to_owned(), DataType::Int64)]);
    let back = protector.reveal(rows, &["ssn", "email", "tax", "address.city"], &kinds, &access()).await.unwrap().rows;
    for column in ["ssn", "email", "tax"] {
        assert_eq!(back.column_by_name(column), before.column_by_name(column), "{column}");
    }
    let city = back.column_by_name("address").unwrap().as_struct().column(0);
    assert_eq!(city, before.column_by_name("address").unwrap().as_struct().column(1));
    for column in ["bio", "phones.number", "id"] {
        let e = protector.reveal(rows, &[column], &kinds, &access()).await.unwrap_err();
        assert_eq!(e.code(), "NoWayBack");
    }
}

#[tokio::test]
async fn classes_of_a_contract_are_treated_and_an_untreated_class_is_an_error() {
    let policy = |text: &str| Policy::parse(text).unwrap();
    let classes = [("email", "email"), ("ssn", "ssn"), ("bio", "text")];
    let says = "[columns]\nbio = 'keep'\n[classes]\nemail = 'hash'\nssn = 'remove'\n";
    let protector = Protector::new(&policy(says), "t", classes, &PiiContext::new().with_roots(roots())).unwrap();
    let rows = protector.apply(&customers()).await.unwrap().rows;
    assert!(rows.column_by_name("ssn").is_none() && shown(&rows, "bio") == shown(&customers(), "bio"));
    assert_eq!(shown(&rows, "email")[0].as_ref().unwrap().len(), 32);
    let e = Protector::new(&policy("[classes]\nemail = 'mask'\nssn = 'mask'"), "t", classes, &PiiContext::new())
        .unwrap_err();
    assert_eq!(
        e.to_string(),
        "UntreatedClass: column `bio` has the class `text`, and [pii] has no treatment for either; add one, such as `keep`"
    );
    // A column whose fields have treatments needs no treatment of its own.
    let parts = "[columns]\n'address.street' = 'mask'\n";
    Protector::new(&policy(parts), "t", [("address", "address")], &PiiContext::new()).unwrap();
    // The class is the namespace, so that columns with different names join.
    let tokens = async |column: &str| {
        let policy = policy("[classes]\nemail = { tokenize = { kind = 'siv' } }");
        let protector =
            Protector::new(&policy, "t", [(column, "email")], &PiiContext::new().with_roots(roots())).unwrap();
        let rows = RecordBatch::try_from_iter([(column, texts(&[Some("a@b.c")]))]).unwrap();
        shown(&protector.apply(&rows).await.unwrap().rows, column)
    };
    assert_eq!(tokens("email").await, tokens("contact").await);
}

#[tokio::test]
async fn missing_keys_and_stores_are_reported_before_rows_are_read() {
    let code = |text: &str, means: &PiiContext| {
        let e = Protector::new(&Policy::parse(text).unwrap(), "t", [], means).unwrap_err();
        assert_eq!(e.column(), Some("c"));
        e.code()
    };
    let roots = PiiContext::new().with_roots(roots());
    assert_eq!(code("[columns]\nc = 'encrypt'", &PiiContext::new()), "NoKeys");
    assert_eq!(code("[columns]\nc = 'hash'", &PiiContext::new()), "NoKeys");
    assert_eq!(code("[columns]\nc = 'tokenize'", &roots), "NoStore");
    assert_eq!(code("[columns]\nc = { encrypt = { key = 'subject' } }", &roots), "NoSubject");
    assert_eq!(code("subject = 'id'\n[columns]\nc = { encrypt = { key = 'subject' } }", &roots), "NoStore");
    assert_eq!(code("[columns]\nc = { encrypt = { key = 'message' } }", &roots), "NoKeys");

    let apply = async |text: &str| {
        let protector = Protector::new(&Policy::parse(text).unwrap(), "t", [], &roots).unwrap();
        protector.apply(&customers()).await.unwrap_err().to_string()
    };
    assert_eq!(
        apply("[columns]\nemial = 'mask'").await,
        "UnknownColumn: there is no column `emial`; the columns are id, ssn, email, bio, tax, address, phones"
    );
    assert_eq!(
        apply("[columns]\n'address.zip' = 'mask'").await,
        "UnknownColumn: there is no column `address.zip`; the columns are street, city"
    );
    assert!(apply("[columns]\ntax = 'redact'").await.starts_with("NotText: column `tax` has type Int64"));
    assert!(apply("[columns]\naddress = 'encrypt'").await.starts_with("NotText"));
}

#[tokio::test]
async fn columns_that_would_remain_in_clear_are_refused() {
    let store = Arc::new(MemoryStore::new());
    let apply = async |text: &str| {
        let protector = Protector::new(&Policy::parse(text).unwrap(), "t", [], &means(&store)).unwrap();
        let numbers = ListArray::new(
            Arc::new(Field::new_list_field(DataType::Int64, true)),
            OffsetBuffer::from_lengths([1, 1]),
            Arc::new(Int64Array::from(vec![12_125_550_100, 7])),
            None,
        );
        let bytes: ArrayRef = Arc::new(arrow::array::BinaryArray::from(vec![&b"\xff"[..], b"a"]));
        let emails = texts(&[Some("a@b.c"), Some("d@e.f")]);
        let emails = ListArray::new(
            Arc::new(Field::new_list_field(DataType::Utf8, true)),
            OffsetBuffer::from_lengths([2, 0]),
            emails,
            None,
        );
        let rows = RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
            ("numbers", Arc::new(numbers)),
            ("bytes", bytes),
            ("emails", Arc::new(emails)),
        ]);
        protector.apply(&rows.unwrap()).await.map(drop).map_err(|e| e.code())
    };
    for treatment in ["'mask'", "'hash'", "'tokenize'", "{ partial = { last = 2 } }"] {
        assert_eq!(apply(&format!("[columns]\nnumbers = {treatment}")).await, Err("NotText"), "{treatment}");
        assert_eq!(apply(&format!("[columns]\nbytes = {treatment}")).await, Err("NotText"), "{treatment}");
        assert_eq!(apply(&format!("[columns]\nemails = {treatment}")).await, Ok(()), "{treatment}");
    }
    assert_eq!(apply("[columns]\nnumbers = 'redact'").await, Err("NotText"), "detectors would not search them");
    assert_eq!(apply("[columns]\nemails = 'redact'").await, Ok(()));
    let subject = "subject = 'id'\n[columns]\n'phones.number' = { encrypt = { key = 'subject' } }";
    let protector = Protector::new(&Policy::parse(subject).unwrap(), "t", [], &means(&store)).unwrap();
    // There are three rows and three numbers, but not one number in each row.
    assert_eq!(protector.apply(&customers()).await.unwrap_err().code(), "InvalidPolicy");
}

#[tokio::test]
async fn equal_rows_have_equal_results_and_no_nonce_is_used_for_two_values() {
    let rows = |email: &str, born: ArrayRef| {
        RecordBatch::try_from_iter([("email", texts(&[Some(email), Some(email)])), ("born", born)]).unwrap()
    };
    let micros: ArrayRef = Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![5, 5]));
    let zoned: ArrayRef = Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![5, 5]).with_timezone("UTC"));
    let apply = async |table: &str, rows: &RecordBatch| {
        let policy = Policy::parse("[columns]\nemail = 'encrypt'\nborn = 'encrypt'").unwrap();
        let means = PiiContext::new().with_roots(roots());
        let protector = Protector::new(&policy, table, [], &means).unwrap().repeatable(&means).unwrap();
        protector.apply(rows).await.unwrap().rows
    };
    let cell =
        |rows: &RecordBatch, column: &str| rows.column_by_name(column).unwrap().as_binary::<i32>().value(0).to_vec();
    let first = apply("a", &rows("x@y.z", micros.clone())).await;
    assert_eq!(
        first,
        apply("a", &rows("x@y.z", micros.clone())).await,
        "a record that is read twice has the same result"
    );
    assert_eq!(cell(&first, "email"), first.column(0).as_binary::<i32>().value(1));
    // The key is derived from the salt; the counter is always 0.
    let salt = |rows: &RecordBatch, column: &str| cell(rows, column)[3..19].to_vec();
    let others = [
        apply("b", &rows("x@y.z", micros.clone())).await,
        apply("a", &rows("x@y.w", micros)).await,
        apply("a", &rows("x@y.z", zoned)).await,
    ];
    for other in &others[..2] {
        assert_ne!(salt(&first, "email"), salt(other, "email"));
    }
    // A column with another type has another text to encrypt.
    assert_ne!(salt(&first, "born"), salt(&others[2], "born"));
    assert_ne!(salt(&first, "born"), salt(&first, "email"));
}

#[test]
fn error_of_an_invalid_policy_has_a_reason() {
    let message = |text: &str| Policy::parse(text).unwrap_err().to_string();
    for (text, part) in [
        ("[columns]\nssn = 'sha256'", "a plain sha256 hides nothing"),
        ("[columns]\nssn = 'SHA-256'", "unknown variant `SHA-256`, expected one of `keep`, `remove`"),
        ("[columns]\nssn = 'partial'", "{ partial = { last = 4 } }"),
        ("[columns]\nssn = { tokenize = { kind = 'ff3' } }", "unknown variant `ff3`"),
        ("[columns]\nssn = { tokenise = {} }", "unknown variant `tokenise`"),
        ("[columns]\nssn = { partial = { lsat = 4 } }", "unknown field `lsat`"),
        ("[colums]\nssn = 'keep'", "unknown field `colums`"),
    ] {
        assert!(message(text).starts_with("InvalidPolicy") && message(text).contains(part), "{}", message(text));
    }
    let policy = Policy::parse("keys = 'k'\n[columns]\na = 'keep'\nb = { redact = { replace = 'mask' } }").unwrap();
    assert_eq!(policy.columns["a"], ColumnTreatment::Keep);
}

#[tokio::test]
async fn hits_get_the_tokens_of_equal_whole_values() {
    let policy = Policy::parse(
        "[columns]\nemail = { tokenize = { kind = 'siv' } }\n\
         bio = { redact = { replace = 'mask', entities = { EMAIL_ADDRESS = { tokenize = { kind = 'siv', namespace = 'email' } } } } }",
    )
    .unwrap();
    let protector = Protector::new(&policy, "t", [], &PiiContext::new().with_roots(roots())).unwrap();
    let rows = RecordBatch::try_from_iter([
        ("email", texts(&[Some("ann@example.com")])),
        ("bio", texts(&[Some("ann@example.com has 4111 1111 1111 1111, says ann@example.com")])),
    ])
    .unwrap();
    let rows = protector.apply(&rows).await.unwrap().rows;
    let token = shown(&rows, "email")[0].clone().unwrap();
    assert_eq!(shown(&rows, "bio")[0].as_deref(), Some(&*format!("{token} has **** **** **** ****, says {token}")));
}

#[tokio::test]
async fn treated_columns_contain_no_original_value() {
    let policy = Policy::parse(
        "[columns]\nssn = 'mask'\nemail = 'encrypt'\nbio = 'redact'\ntax = 'hash'\n'address.street' = 'remove'",
    )
    .unwrap();
    let protector = Protector::new(&policy, "t", [], &PiiContext::new().with_roots(roots())).unwrap();
    let rows = protector.apply(&customers()).await.unwrap().rows;
    fn collect(data: &arrow::array::ArrayData, bytes: &mut Vec<u8>) {
        data.buffers().iter().for_each(|buffer| bytes.extend_from_slice(buffer.as_slice()));
        data.child_data().iter().for_each(|child| collect(child, bytes));
    }
    let mut bytes = vec![];
    for column in ["ssn", "email", "bio", "tax", "address"] {
        collect(&rows.column_by_name(column).unwrap().to_data(), &mut bytes);
    }
    for canary in ["123-45-6789", "a@b.c", "d@e.f", "a@b.com", "912345678", "Main St", "Elm St"] {
        assert!(!bytes.windows(canary.len()).any(|part| part == canary.as_bytes()), "{canary}");
    }
}

//! `biscuit schema`: contracts are inferred, printed, checked and compared.

use crate::binary::Folder;

fn with_files() -> Folder {
    let f = Folder::new();
    f.write("raw/1.csv", "id,zip,order_date,amount\n1,02134,2024-02-29,1.5\n");
    f.write("raw/2.csv", "id,zip,order_date,amount\nx,10115,2024-03-01,2\n");
    f
}

#[test]
fn contract_is_inferred_and_its_conflicts_are_reported() {
    let f = with_files();
    let ran = f.run("schema infer raw");
    assert_eq!(ran.code, 0, "{}", ran.err);
    for part in [
        "name = \"zip\"\ntype = \"string\"",
        "name = \"order_date\"\ntype = \"date\"",
        "name = \"amount\"\ntype = \"double\"",
    ] {
        assert!(ran.out.contains(part), "{part}\n{}", ran.out);
    }
    assert!(ran.err.contains("`id` is bigint at ") && ran.err.contains("and string at "), "{}", ran.err);
    let json = f.run("schema infer raw/1.csv --json").json();
    assert_eq!(json["contract"]["columns"][0]["type"], "bigint");
    f.write("contract.toml", ran.out);
    let ddl = f.run("schema show contract.toml --as ddl --database lake --name orders --location s3://lake/orders");
    assert!(ddl.out.starts_with("CREATE EXTERNAL TABLE `lake`.`orders` (\n  `id` string,\n"), "{}", ddl.out);
    let none = f.run("schema infer nowhere");
    assert!(none.code == 2 && none.err.contains("no objects at"), "{}", none.err);
}

#[test]
fn contract_survives_a_round_trip_through_every_form() {
    let f = Folder::new();
    f.write("c.toml", "key = ['id']\npartition_by = ['day']\n[[columns]]\nname = 'id'\ntype = 'bigint'\n[[columns]]\nname = 'day'\ntype = 'date'\n");
    let place = "--name orders --database lake --location s3://lake/orders --project day=since:2024-01-01";
    for (form, file) in
        [("json", "c.json"), ("glue", "glue.json"), ("cloudformation", "cf.json"), ("toml", "again.toml")]
    {
        let ran = f.run(&format!("schema show c.toml --as {form} {place}"));
        assert_eq!(ran.code, 0, "{}", ran.err);
        f.write(file, ran.out);
        let table = if form == "cloudformation" { "--table orders" } else { "" };
        let back = f.run(&format!("schema show {file} {table} --json")).json();
        assert_eq!(back["contract"]["partition_by"], serde_json::json!(["day"]), "{form}: {back}");
        assert_eq!(back["contract"]["key"], serde_json::json!(["id"]), "{form}");
    }
    let which = f.run("schema show cf.json");
    assert!(which.code == 2 && which.err.contains("name one with --table"), "{}", which.err);
    f.write("order.avsc", r#"{"type":"record","name":"O","fields":[{"name":"id","type":"long"},{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#);
    let avro = f.run("schema show order.avsc");
    assert!(avro.out.contains("type = \"timestamp\"") || avro.out.contains("type = \"timestamptz\""), "{}", avro.out);
}

#[test]
fn table_is_shown_and_checked_against_a_contract() {
    let f = Folder::new();
    f.write(
        "c.jsonl",
        "{\"id\":1,\"n\":1,\"mail\":\"a@x\",\"op\":\"c\"}\n{\"id\":2,\"n\":1,\"mail\":null,\"op\":\"c\"}\n",
    );
    f.run("merge --target lake/t --format rows --key id --order n --op op --changes c.jsonl");
    let shown = f.run("schema show lake/t");
    assert!(shown.out.contains("key = [\"id\"]") && shown.out.contains("name = \"mail\""), "{}", shown.out);
    f.write("own.toml", &shown.out);
    assert_eq!(f.run("schema check lake/t --contract own.toml").out, "complies\n");
    let strict = "[[columns]]\nname = 'id'\ntype = 'bigint'\n[[columns]]\nname = 'n'\ntype = 'bigint'\n[[columns]]\nname = 'mail'\ntype = 'string'\nnullable = false\n[[checks]]\nrule = 'range'\ncolumn = 'id'\nmax = 1\n";
    f.write("strict.toml", strict);
    let ran = f.run("schema check lake/t --contract strict.toml");
    assert_eq!(ran.code, 3, "{} {}", ran.out, ran.err);
    for line in [
        "breaks\n",
        "rows     OutOfRange 1 rows: `id` is at most 1, first ",
        "rows     NullNotAllowed 1 rows: `mail` is not null, first ",
    ] {
        assert!(ran.out.contains(line), "{line}\n{}", ran.out);
    }
    f.write("refuse.toml", format!("extra = 'refuse'\n{}", strict.replace("'mail'", "'email'")));
    let ran = f.run("schema check lake/t --contract refuse.toml");
    assert!(ran.out.contains("columns  `mail` is new"), "{}", ran.out);
    f.write("other.toml", strict.replace("'mail'", "'email'"));
    let ran = f.run("schema check lake/t --contract other.toml");
    assert!(
        ran.code == 3 && ran.out.contains("columns  `email` is removed") && !ran.out.contains("is new"),
        "{}",
        ran.out
    );
}

#[test]
fn diff_reports_which_readers_break() {
    let f = Folder::new();
    f.write("old.toml", "[[columns]]\nname = 'id'\ntype = 'int'\n[[columns]]\nname = 'v'\ntype = 'string'\n");
    f.write(
        "new.toml",
        "[[columns]]\nname = 'id'\ntype = 'bigint'\n[[columns]]\nname = 'w'\ntype = 'string'\nnullable = false\n",
    );
    let ran = f.run("schema diff old.toml new.toml --require full");
    assert_eq!(ran.code, 3);
    assert_eq!(
        ran.out,
        "`id` is widened from int to bigint  breaks readers with the old contract\n\
         `w` is new and not nullable  breaks readers with the new contract\n\
         `v` is removed\n"
    );
    assert_eq!(f.run("schema diff old.toml old.toml --require full").out, "the contracts are equal\n");
}

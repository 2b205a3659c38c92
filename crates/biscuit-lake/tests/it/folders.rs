//! Which folder belongs to whom: names from data, tables inside tables, links, other table formats.

use std::path::Path;

use crate::binary::Folder;

const MERGE: &str = "merge --format rows --key id --order seq";

/// Merges one row into a table, and asserts success.
fn merged(f: &Folder, target: &str, id: u32, value: &str) {
    let ran = merge(f, target, id, value);
    assert_eq!(ran.code, 0, "{}", ran.err);
}

/// Merges one row into a table.
fn merge(f: &Folder, target: &str, id: u32, value: &str) -> crate::binary::Ran {
    f.write("row.jsonl", format!("{{\"id\":{id},\"seq\":1,\"v\":\"{value}\"}}\n"));
    f.run(&format!("{MERGE} --target {target} --changes row.jsonl"))
}

/// Returns the Debezium envelope of a create in a table.
fn event(schema: &str, table: &str, id: u32) -> String {
    let fields = serde_json::json!([
        {"field": "after", "type": "struct", "fields": [{"field": "id", "type": "int64"}, {"field": "v", "type": "string"}]},
        {"field": "source", "type": "struct", "fields": []},
    ]);
    let source = serde_json::json!({"connector": "postgresql", "schema": schema, "table": table, "lsn": id});
    let payload = serde_json::json!({"op": "c", "before": null, "after": {"id": id, "v": "x"}, "source": source});
    let value = serde_json::json!({"schema": {"type": "struct", "fields": fields}, "payload": payload});
    format!("{}\n", serde_json::json!({"key": {"id": id}, "headers": {}, "value": value}))
}

/// Merges events into the targets of their tables.
fn merge_all(f: &Folder, target: &str, events: &[String]) -> crate::binary::Ran {
    f.write("events.jsonl", events.concat());
    f.run_with(&[
        "merge",
        "--target",
        target,
        "--table",
        "*",
        "--format",
        "debezium",
        "--changes",
        "events.jsonl",
        "--json",
    ])
}

fn parquet_files(f: &Folder, below: &str) -> usize {
    f.files(below).iter().filter(|(path, ..)| path.extension().is_some_and(|e| e == "parquet")).count()
}

#[test]
fn table_is_not_created_inside_or_around_another_table() {
    let f = Folder::new();
    merged(&f, "lake/a", 1, "outer");
    for inner in ["lake/a/b", "lake/a/day=1/b", "lake/a/.biscuit/b", "lake/.biscuit/a", "lake/.biscuit/a/b"] {
        let ran = merge(&f, inner, 1, "inner");
        assert_eq!(ran.code, 2, "{inner}: {}", ran.err);
        assert!(ran.err.contains("OverlapsTable") && ran.err.contains("lake"), "{inner}: {}", ran.err);
    }
    merged(&f, "deep/x/y", 1, "inner");
    for outer in ["deep/x", "deep"] {
        let ran = merge(&f, outer, 1, "outer");
        assert!(ran.code == 2 && ran.err.contains("OverlapsTable"), "{outer}: {}", ran.err);
    }
    assert_eq!((f.rows("lake/a").len(), f.rows("deep/x/y").len()), (1, 1));
    assert_eq!(parquet_files(&f, "."), 2, "a refused run leaves no file");
}

#[test]
fn files_of_an_inner_table_are_never_treated_as_files_of_the_outer_table() {
    let f = Folder::new();
    merged(&f, "lake/inner", 1, "inner");
    merged(&f, "lake/outer", 1, "outer");
    // The state of the folders after someone has moved a table together with its state root.
    for (from, to) in [("lake/inner", "lake/outer/inner"), ("lake/.biscuit/inner", "lake/outer/.biscuit/inner")] {
        std::fs::create_dir_all(f.path().join(to).parent().expect("the path has a parent"))
            .expect("the folder can be created");
        std::fs::rename(f.path().join(from), f.path().join(to)).expect("the folder can be moved");
    }
    let before = f.files("lake/outer/inner");
    for command in
        ["merge --format rows --key id --order seq --changes row.jsonl --target lake/outer", "compact lake/outer"]
    {
        let ran = f.run(command);
        assert!(ran.code == 2 && ran.err.contains("OverlapsTable"), "{command}: {}", ran.err);
    }
    assert_eq!(f.rows("lake/outer"), [r#"{"id":1,"seq":1,"v":"outer"}"#]);
    for command in
        ["purge lake/outer --orphans --grace 0s", "purge lake/outer --before 2999-01-01 --allow empty,overlap"]
    {
        f.run(command);
        assert_eq!(f.files("lake/outer/inner"), before, "{command}");
    }
}

#[test]
fn table_in_a_state_root_and_state_root_in_a_table_are_refused() {
    let f = Folder::new();
    f.write("row.jsonl", "{\"id\":1,\"seq\":1}\n");
    assert_eq!(f.run(&format!("{MERGE} --target lake/t --state states/t --changes row.jsonl")).code, 0);
    for target in ["states/t", "states/t/x", "states"] {
        let ran = f.run(&format!("{MERGE} --target {target} --changes row.jsonl"));
        assert!(ran.code == 2 && ran.err.contains("OverlapsTable"), "{target}: {}", ran.err);
    }
    let ran = f.run(&format!("{MERGE} --target lake/u --state lake/t/state --changes row.jsonl"));
    assert!(ran.code == 2 && ran.err.contains("OverlapsTable"), "{}", ran.err);
    assert_eq!(f.rows("lake/t").len(), 1);
}

#[test]
fn names_of_source_tables_cannot_escape_the_target_folder() {
    let f = Folder::new();
    for (schema, table) in [
        ("../../elsewhere", "evil"),
        ("..", "t"),
        (".", "t"),
        ("public", ".."),
        ("public", ""),
        ("", "t"),
        (".biscuit", "orders"),
        ("public", ".biscuit"),
        ("public", &"x".repeat(300)),
        ("{table}", "t/../../../x"),
        ("/etc", "t"),
        ("a\\..\\b", "t"),
    ] {
        let ran = merge_all(&f, "lake/in/{schema}/{table}", &[event(schema, table, 1), event("public", "good", 2)]);
        let json = ran.json();
        let tables = json["tables"].as_array().expect("the tables are an array");
        let good = tables.iter().find(|t| t["table"] == "public.good").expect("the other table is found");
        assert!(matches!(good["outcome"].as_str(), Some("committed" | "unchanged")), "{schema}, {table}: {json}");
        for (path, ..) in f.files(".") {
            let relative = path.strip_prefix(f.path()).expect("the path is below the prefix");
            let inside = relative == Path::new("events.jsonl") || relative.starts_with("lake/in");
            assert!(inside, "{schema}, {table}: {}", relative.display());
        }
    }
    assert_eq!(f.rows("lake/in/public/good").len(), 1);
    let names = |at: &str| {
        let mut names: Vec<String> = std::fs::read_dir(f.path().join(at))
            .expect("the folder is readable")
            .map(|e| e.expect("the entry is readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names("lake/in"),
        ["%2Fetc", "a%5C..%5Cb", "public", "%7Btable}"]
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
}

#[test]
fn source_table_without_a_name_is_refused_and_other_tables_are_unchanged() {
    let f = Folder::new();
    let good = [event("public", "orders", 1), event("public", "customers", 1)];
    assert_eq!(merge_all(&f, "lake/{schema}/{table}", &good).code, 0);
    let ran = merge_all(&f, "lake/{schema}/{table}", &[event("public", "", 2)]);
    assert_eq!(ran.code, 3, "{}", ran.out);
    assert_eq!(ran.json()["tables"][0]["error"]["code"], "UnnamedTable");
    let flat = "{\"id\":1,\"v\":\"x\",\"__op\":\"c\",\"__lsn\":1}\n".to_owned();
    assert_eq!(merge_all(&f, "lake/{table}", &[flat]).json()["tables"][0]["error"]["code"], "UnnamedTable");
    assert_eq!((f.rows("lake/public/orders").len(), f.rows("lake/public/customers").len()), (1, 1));
}

#[test]
fn source_tables_with_similar_names_have_separate_targets_or_are_refused() {
    let f = Folder::new();
    let dotted = [event("a", "b.c", 1), event("a.b", "c", 2)];
    let ran = merge_all(&f, "lake/{schema}/{table}", &dotted);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert_eq!((f.rows("lake/a/b.c").len(), f.rows("lake/a.b/c").len()), (1, 1));

    for (target, events) in [
        ("one/{table}", [event("a", "t", 1), event("b", "t", 2)]),
        ("two/{schema}/{table}", [event("a", "Orders", 1), event("a", "orders", 2)]),
        ("three/{table}", [event("a", "\u{e4}pfel", 1), event("a", "a\u{308}pfel", 2)]),
        ("four/{schema}.{table}", dotted),
    ] {
        let ran = merge_all(&f, target, &events);
        assert_eq!(ran.code, 2, "{target}: {}", ran.out);
        let json = ran.json();
        let codes: Vec<&str> = json["tables"]
            .as_array()
            .expect("the tables are an array")
            .iter()
            .filter_map(|t| t["error"]["code"].as_str())
            .collect();
        assert_eq!(codes, ["SeveralTables", "SeveralTables"], "{target}");
        assert_eq!(parquet_files(&f, target.split('/').next().expect("the folder has an entry")), 0);
    }
    f.write("two.jsonl", dotted_lines());
    let ran = f.run("merge --target lake/one --table a.b.c --format debezium --changes two.jsonl");
    assert!(ran.code == 2 && ran.err.contains("SeveralTables"), "{}", ran.err);
}

fn dotted_lines() -> String {
    [event("a", "b.c", 1), event("a.b", "c", 2)].concat()
}

#[test]
fn table_whose_name_differs_only_in_letter_case_is_refused() {
    let f = Folder::new();
    merged(&f, "lake/orders", 1, "a");
    for other in ["lake/Orders", "lake/ORDERS"] {
        let ran = merge(&f, other, 2, "b");
        assert!(ran.code == 2 && ran.err.contains("LooksAlike"), "{}", ran.err);
    }
    merged(&f, "lake/orders2", 1, "a");
}

#[cfg(unix)]
mod links {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn table_behind_a_link_is_the_same_table() {
        let f = Folder::new();
        let at = |name: &str| f.path().join(name);
        std::fs::create_dir_all(at("data/t")).expect("the folder can be created");
        std::fs::create_dir_all(at("lake")).expect("the folder can be created");
        symlink(at("data/t"), at("lake/t")).expect("the link can be created");
        merged(&f, "lake/t", 1, "a");
        std::thread::sleep(std::time::Duration::from_millis(50));
        for place in ["lake/t", "data/t"] {
            let ran = f.run(&format!("purge {place} --before 2999-01-01 --allow empty"));
            assert!(ran.code == 2 && ran.err.contains("LiveFiles"), "{place}: {}", ran.err);
            assert_eq!(f.rows(place).len(), 1);
        }
        merged(&f, "data/t", 2, "b");
        assert_eq!(f.rows("lake/t").len(), 2);
        // A table inside a link is inside the table that the link points to.
        let ran = merge(&f, "data/t/inner", 3, "c");
        assert!(ran.code == 2 && ran.err.contains("OverlapsTable"), "{}", ran.err);
        let ran = merge(&f, "lake/t/inner", 3, "c");
        assert!(ran.code == 2 && ran.err.contains("OverlapsTable"), "{}", ran.err);
    }

    #[test]
    fn link_inside_a_table_is_refused_and_not_followed() {
        let f = Folder::new();
        merged(&f, "lake/t", 1, "a");
        merged(&f, "other/u", 7, "u");
        symlink(f.path().join("other/u"), f.path().join("lake/t/more")).expect("the link can be created");
        for command in [
            "show lake/t",
            "merge --format rows --key id --order seq --changes row.jsonl --target lake/t",
            "compact lake/t",
            "adopt lake/t",
            "verify lake/t",
        ] {
            let ran = f.run(command);
            assert!(ran.code == 2 && ran.err.contains("LinkInTable"), "{command}: {} {}", ran.code, ran.err);
        }
        assert_eq!(f.rows("other/u").len(), 1);
        let loops = Folder::new();
        merged(&loops, "lake/t", 1, "a");
        symlink(loops.path().join("lake/t"), loops.path().join("lake/t/again")).expect("the link can be created");
        assert!(loops.run("show lake/t").err.contains("LinkInTable"));
    }
}

/// Creates a folder with data files and the log of another table format.
fn other_format(f: &Folder, folder: &str, log: &str) {
    merged(f, "made/t", 1, "a");
    let file = f.files("made/t").remove(0).0;
    f.write(&format!("{folder}/part-0.parquet"), std::fs::read(file).expect("the file can be read"));
    f.write(&format!("{folder}/day=1/part-1.parquet"), "x");
    f.write(&format!("{folder}/{log}"), "{}");
}

#[test]
fn folders_of_other_table_formats_are_neither_read_nor_changed() {
    for log in [
        "_delta_log/00000000000000000000.json",
        "metadata/v1.metadata.json",
        ".hoodie/hoodie.properties",
        "schema/schema-0",
    ] {
        let f = Folder::new();
        other_format(&f, "lake/d", log);
        let before = f.files("lake");
        f.write(
            "job.toml",
            "name = 'j'\n[sources.s]\nurl = 'lake/d'\nformat = 'parquet'\n[target]\nurl = 'out/d'\nmode = 'append'\n",
        );
        for command in [
            "show lake/d",
            "adopt lake/d",
            "compact lake/d",
            "verify lake/d",
            "run job.toml",
            "purge lake/d --before 2999-01-01 --allow empty",
            "purge lake --before 2999-01-01 --allow empty,overlap",
            "purge lake/d/day=1 --before 2999-01-01 --allow empty",
            "purge lake/d --orphans --grace 0s",
            "merge --format rows --key id --order seq --changes row.jsonl --target lake/d",
            "merge --format rows --key id --order seq --changes row.jsonl --target lake/d/inner",
            "merge --format rows --key id --order seq --changes lake/d --target lake/t",
            "merge --format rows --key id --order seq --changes lake/d/part-0.parquet --target lake/t",
            "merge --format rows --key id --order seq --changes lake/d/*.parquet --target lake/t --bookmark b",
        ] {
            let ran = f.run(command);
            assert!(
                ran.code == 2 && ran.err.contains("OtherTableFormat"),
                "{log}, {command}: {} {}",
                ran.code,
                ran.err
            );
        }
        assert_eq!(f.files("lake"), before, "{log}");
        let ran = f.run("merge --format rows --key id --order seq --changes lake/d/part-0.parquet --target lake/t --allow-other-formats");
        assert_eq!((ran.code, f.rows("lake/t").len()), (0, 1), "{log}: {}", ran.err);
    }
}

#[test]
fn invalid_partition_columns_are_refused_before_anything_is_written() {
    let f = Folder::new();
    f.write(
        "a.jsonl",
        "{\"id\":1,\"seq\":1,\"n\":\"a\",\".n\":\"a\"}\n{\"id\":2,\"seq\":1,\"n\":\"b\",\".n\":\"a\"}\n",
    );
    for columns in ["id,seq,n,.n", "n,n", ".n", "n,N"] {
        let ran = f.run(&format!("{MERGE} --target lake/t --changes a.jsonl --partition-by {columns}"));
        assert!(matches!(ran.code, 2 | 3), "{columns}: {}", ran.err);
        assert!(ran.err.contains("PartitionColumns") || ran.err.contains("MissingColumn"), "{columns}: {}", ran.err);
        assert_eq!(f.files("lake").len(), 0, "{columns}");
    }
    f.write("b.jsonl", "{\"id\":1,\"seq\":1,\"n\":\"a\"}\n");
    let ran = f.run(&format!("{MERGE} --target lake/t --changes b.jsonl --partition-by id,seq,n"));
    assert!(ran.code == 2 && ran.err.contains("PartitionColumns"), "{}", ran.err);
    f.write("in/c.csv", "a,b\n1,2\n");
    f.write("job.toml", "name = 'j'\n[sources.s]\nurl = 'in'\nformat = 'csv'\n[target]\nurl = 'lake/j'\nmode = 'append'\npartition_by = ['a', 'b']\n");
    let ran = f.run("run job.toml");
    assert!(ran.code == 2 && ran.err.contains("PartitionColumns"), "{}", ran.err);
    assert_eq!(parquet_files(&f, "lake"), 0);
}

#[test]
fn partition_value_that_is_too_long_for_a_folder_is_refused_before_the_commit() {
    let f = Folder::new();
    let row = |text: &str| format!("{{\"id\":1,\"seq\":1,\"p\":\"{text}\"}}\n");
    f.write("long.jsonl", row(&"x".repeat(300)));
    let ran = f.run(&format!("{MERGE} --target lake/t --changes long.jsonl --partition-by p"));
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains("PartitionValue") && ran.err.contains("`p`"), "{}", ran.err);
    assert_eq!(parquet_files(&f, "lake"), 0);
    f.write("ok.jsonl", row(&"x".repeat(253)));
    assert_eq!(f.run(&format!("{MERGE} --target lake/t --changes ok.jsonl --partition-by p")).code, 0);
    assert_eq!(f.rows("lake/t").len(), 1);
    // Several levels, each of a valid length, can still add up to a key that is too long.
    let deep: String = (0..5).map(|i| format!(",\"p{i}\":\"{}\"", "y".repeat(240))).collect();
    f.write("deep.jsonl", format!("{{\"id\":1,\"seq\":1{deep}}}\n"));
    let ran = f.run(&format!("{MERGE} --target lake/deep --changes deep.jsonl --partition-by p0,p1,p2,p3,p4"));
    assert!(ran.code == 3 && ran.err.contains("NameTooLong"), "{}", ran.err);
    let ran = f.run("show lake/deep");
    assert_eq!(ran.code, 2, "{}", ran.err);
}

#[test]
fn file_with_the_name_of_a_partition_folder_stops_the_run_before_its_commit() {
    let f = Folder::new();
    f.write("a.jsonl", "{\"id\":1,\"seq\":1,\"p\":\"x\"}\n");
    f.write("lake/t/p=x", "");
    let merge = format!("{MERGE} --target lake/t --changes a.jsonl --partition-by p");
    let ran = f.run(&merge);
    assert_eq!(ran.code, 6, "{}", ran.err);
    assert!(ran.err.contains("NotAFolder") && ran.err.contains("p=x"), "{}", ran.err);
    std::fs::remove_file(f.path().join("lake/t/p=x")).expect("the path exists");
    assert_eq!(f.run(&merge).code, 0);
    assert_eq!(f.rows("lake/t").len(), 1);
}

#[test]
fn path_without_a_table_is_an_error_and_not_an_empty_table() {
    let f = Folder::new();
    for command in
        ["verify", "history", "recover", "adopt", "compact", "quarantine list", "bookmark show", "periods", "show"]
    {
        let ran = f.run(&format!("{command} lake/misspelled"));
        assert_eq!(ran.code, 2, "{command}: {} {}", ran.out, ran.err);
    }
    assert!(f.files(".").is_empty());
}

#[test]
fn damaged_pointer_to_the_state_root_is_an_error() {
    for damage in ["{", "{\"format\":3,\"state\":\"../../etc\"}", "[]", "", "{\"format\":3,\"state\":\"\"}"] {
        let f = Folder::new();
        merged(&f, "lake/t", 1, "a");
        f.write("lake/.biscuit/t/root.json", damage);
        for command in ["show lake/t", "recover lake/t", "purge lake/t --orphans", "compact lake/t"] {
            let ran = f.run(command);
            assert_eq!(ran.code, 3, "{damage}, {command}: {}", ran.err);
            assert!(ran.err.contains("UnreadableRecord") && ran.err.contains("root.json"), "{}", ran.err);
        }
    }
}

#[test]
fn input_that_shares_files_with_the_table_is_refused() {
    let f = Folder::new();
    let row = |id: u32| format!("{{\"id\":{id},\"seq\":1}}\n");
    f.write("raw/a.jsonl", row(1));
    f.write("cdc/events.jsonl", event("s", "t", 1));
    f.write("job.toml", "name = \"j\"\n[sources.s]\nurl = \"raw\"\nformat = \"json\"\n[target]\nurl = \"raw/clean\"\nmode = \"append\"\n");
    for words in [
        format!("{MERGE} --target raw/clean --changes raw"),
        format!("{MERGE} --target raw/clean --changes raw/**"),
        format!("{MERGE} --target raw --changes raw/a.jsonl"),
        "merge --format debezium --table * --target cdc/{schema}/{table} --changes cdc/**/*".to_owned(),
        "run job.toml".to_owned(),
    ] {
        let before = f.files(".");
        let ran = f.run(&words);
        let printed = ran.out.clone() + &ran.err;
        assert!(ran.code == 2 && printed.contains("InputOverlapsTable"), "{words}: {printed}");
        assert_eq!(f.files("."), before, "{words}");
    }
    let ran = f.run(&format!("{MERGE} --target raw/clean --changes raw/a.jsonl"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ran = f.run(&format!("{MERGE} --target raw/clean --changes raw/*.jsonl --dry-run"));
    assert!(!ran.err.contains("InputOverlapsTable"), "{}", ran.err);
}

//! Contracts from and to Glue, CloudFormation, DDL and Avro.

use biscuit_schema::{Contract, PartitionProjection, TablePlace};

fn types(contract: &Contract) -> Vec<String> {
    contract
        .columns
        .iter()
        .map(|c| format!("{} {}", c.name, c.hive_type().expect("the column has a Hive type")))
        .collect()
}

const TEMPLATE: &str = r#"
AWSTemplateFormatVersion: "2010-09-09"
Parameters:
  Stage: {Type: String}
Resources:
  Bucket:
    Type: AWS::S3::Bucket
  Kangaroos:
    Type: AWS::Glue::Table
    Properties:
      CatalogId: !Ref AWS::AccountId
      DatabaseName: !Ref Database
      TableInput:
        Name: kangaroos
        Description: what hops
        StorageDescriptor:
          Location: !Sub "s3://${Bucket}/kangaroos"
          Columns:
            - {Name: title, Type: string, Comment: of the book}
            - {Name: author_age, Type: tinyint}
            - {Name: puddles, Type: smallint}
            - {Name: kangaroos_in_australia, Type: int}
            - {Name: trees_in_world, Type: bigint}
            - {Name: publish_date, Type: date}
            - {Name: author_time, Type: timestamp}
            - {Name: royalties_owed, Type: "decimal(38, 2)"}
            - {Name: pet, Type: "struct<name:string,age:int>"}
            - {Name: stats, Type: "array<int>"}
            - {Name: metadata, Type: "array<struct<key:string,value:string>>"}
        PartitionKeys:
          - {Name: day, Type: date}
  Staged:
    Type: AWS::Glue::Table
    Properties:
      TableInput:
        Name: !Sub "wallabies-${Stage}"
        StorageDescriptor:
          Columns: [{Name: id, Type: bigint}]
"#;

#[test]
fn template_is_read_with_partition_keys_and_comments() {
    let contract = Contract::from_cloudformation(TEMPLATE, "kangaroos").unwrap();
    assert_eq!(
        types(&contract),
        [
            "title string",
            "author_age tinyint",
            "puddles smallint",
            "kangaroos_in_australia int",
            "trees_in_world bigint",
            "publish_date date",
            "author_time timestamp",
            "royalties_owed decimal(38,2)",
            "pet struct<name:string,age:int>",
            "stats array<int>",
            "metadata array<struct<key:string,value:string>>",
            "day date",
        ]
    );
    assert_eq!(contract.partition_by, ["day"]);
    assert_eq!(contract.column("title").unwrap().comment.as_deref(), Some("of the book"));
    assert_eq!(contract.comment.as_deref(), Some("what hops"));
    assert_eq!(types(&Contract::from_cloudformation(TEMPLATE, "Staged").unwrap()), ["id bigint"]);
}

#[test]
fn unknown_table_of_a_template_is_refused_with_the_existing_tables() {
    let e = Contract::from_cloudformation(TEMPLATE, "wombats").unwrap_err();
    assert_eq!(
        e.to_string(),
        "UnknownTable: the template has no table `wombats`; it has `kangaroos`, a table with a computed name and the logical id `Staged`"
    );
    assert_eq!(Contract::from_cloudformation("a: [", "t").unwrap_err().code(), "InvalidTemplate");
    assert_eq!(Contract::from_cloudformation("a: b", "t").unwrap_err().code(), "InvalidTemplate");
}

#[test]
fn reply_of_glue_is_read() {
    let reply = r#"{"Table": {"Name": "books", "DatabaseName": "glue_reference", "StorageDescriptor": {"Columns": [
        {"Name": "title", "Type": "string"}, {"Name": "publish_date", "Type": "date"}, {"Name": "author_name", "Type": "string"},
        {"Name": "author_birth_date", "Type": "date"}, {"Name": "author_id", "Type": "bigint"}]}, "PartitionKeys": []}}"#;
    let contract = Contract::from_glue_json(reply).unwrap();
    assert_eq!(
        types(&contract),
        ["title string", "publish_date date", "author_name string", "author_birth_date date", "author_id bigint"]
    );
    assert_eq!(contract.table.as_deref(), Some("glue_reference.books"));
    assert_eq!(Contract::from_glue_json("{}").unwrap_err().code(), "InvalidGlueTable");
    let unknown = r#"{"StorageDescriptor": {"Columns": [{"Name": "u", "Type": "uniontype<int,string>"}]}}"#;
    let e = Contract::from_glue_json(unknown).unwrap_err();
    assert_eq!((e.code(), e.column()), ("UnknownType", Some("u")));
}

fn orders() -> Contract {
    Contract::from_toml(
        "
        comment = \"what was ordered\"
        version = '3'
        key = ['id']
        grain = ['id']
        partition_by = ['day', 'region']
        [[columns]]
        name = 'region'
        type = 'string'
        [[columns]]
        name = 'id'
        type = 'bigint'
        comment = \"it's unique\"
        [[columns]]
        name = 'lines'
        type = 'array<struct<sku:varchar(20),n:int>>'
        [[columns]]
        name = 'day'
        type = 'date'
        ",
    )
    .expect("the contract is valid")
}

fn place() -> TablePlace {
    TablePlace::new("orders", "s3://lake/orders/").in_database("sales")
}

#[test]
fn glue_tables_and_templates_are_read_back() {
    let input = orders().to_glue_json(&place()).unwrap();
    let back = Contract::from_glue_json(&input.to_string()).unwrap();
    assert_eq!(types(&back), ["id bigint", "lines array<struct<sku:varchar(20),n:int>>", "day date", "region string"]);
    assert_eq!((&back.partition_by, &back.key, &back.grain), (&orders().partition_by, &orders().key, &orders().grain));
    assert_eq!((back.version, back.comment), (orders().version, orders().comment));
    let template = orders().to_cloudformation("Orders", &place()).unwrap().to_string();
    let back = Contract::from_cloudformation(&template, "orders").unwrap();
    assert_eq!(back.table.as_deref(), Some("sales.orders"));
    assert_eq!(back.columns.len(), 4);
}

#[test]
fn ddl_has_partition_columns_or_a_projection() {
    let ddl = orders().to_ddl(&place()).unwrap();
    assert_eq!(
        ddl,
        "CREATE EXTERNAL TABLE `sales`.`orders` (
  `id` bigint COMMENT 'it\\'s unique',
  `lines` array<struct<sku:varchar(20),n:int>>
)
COMMENT 'what was ordered'
PARTITIONED BY (
  `day` date,
  `region` string
)
STORED AS PARQUET
LOCATION 's3://lake/orders/'
TBLPROPERTIES (
  'classification' = 'parquet'
);
"
    );
    let days = PartitionProjection::days_since("day", "2024-01-01");
    let projected = place().with_projection([days.clone(), PartitionProjection::one_of("region", &["eu", "us"])]);
    let ddl = orders().to_ddl(&projected).unwrap();
    for line in [
        "  'projection.enabled' = 'true',\n",
        "  'projection.day.range' = '2024-01-01,NOW',\n",
        "  'projection.region.values' = 'eu,us',\n",
        "  'storage.location.template' = 's3://lake/orders/day=${day}/region=${region}/'\n",
    ] {
        assert!(ddl.contains(line), "{line}\n{ddl}");
    }
    let e = orders().to_ddl(&place().with_projection([days])).unwrap_err();
    assert_eq!((e.code(), e.column()), ("InvalidProjection", Some("region")));
}

#[test]
fn type_without_a_hive_type_is_refused() {
    let contract = Contract::from_toml("[[columns]]\nname = 'at'\ntype = 'time'\n").unwrap();
    let e = contract.to_ddl(&place()).unwrap_err();
    assert_eq!((e.code(), e.column()), ("NoHiveType", Some("at")));
}

#[test]
fn an_avro_schema_is_read() {
    let schema = r#"{
        "type": "record", "name": "Order", "namespace": "sales", "doc": "what was ordered",
        "fields": [
            {"name": "id", "type": "long", "doc": "its number"},
            {"name": "mail", "type": ["null", "string"], "default": null, "aliases": ["e_mail"]},
            {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "day", "type": {"type": "int", "logicalType": "date"}, "default": 0},
            {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "DONE"]}, "default": "NEW"},
            {"name": "before", "type": ["null", "State"]},
            {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
                {"name": "sku", "type": "string"}, {"name": "n", "type": "int"}]}}},
            {"name": "first", "type": ["null", "sales.Line"]},
            {"name": "tags", "type": {"type": "map", "values": "string"}}
        ]}"#;
    let contract = Contract::from_avro(schema).unwrap();
    assert_eq!(
        types(&contract),
        [
            "id bigint",
            "mail string",
            "amount decimal(12,2)",
            "at timestamp",
            "day date",
            "state string",
            "before string",
            "lines array<struct<sku:string,n:int>>",
            "first struct<sku:string,n:int>",
            "tags map<string,string>",
        ]
    );
    let column = |name: &str| contract.column(name).unwrap();
    assert_eq!((column("id").nullable, column("mail").nullable), (false, true));
    assert_eq!(column("mail").reading.renamed_from, ["e_mail"]);
    assert_eq!(column("state").reading.default.as_deref(), Some("NEW"));
    assert_eq!(contract.table.as_deref(), Some("sales.Order"));
    for (bad, said) in [
        (r#"{"type":"string"}"#, "it is not a record"),
        (r#"{"type":"record","name":"R","fields":[{"name":"u","type":["int","string"]}]}"#, "a union of several types"),
        (r#"{"type":"record","name":"R","fields":[{"name":"u","type":"Nowhere"}]}"#, "`Nowhere` is not declared"),
    ] {
        let e = Contract::from_avro(bad).unwrap_err();
        assert!(e.code() == "InvalidAvro" && e.message().contains(said), "{e}");
    }
}

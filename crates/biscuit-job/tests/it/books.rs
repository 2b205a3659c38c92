//! A join of two sources into one wide table, with a grain that detects duplicates from the join.

use biscuit_core::Outcome;

use crate::lab::Lab;

const BOOKS: &str = "
    name = 'books'
    [sources.books]
    url = 'raw/books'
    format = 'json'
    [sources.books.contract]
    columns = [
        {name = 'title', type = 'string', nullable = false},
        {name = 'publish_date', type = 'date'},
        {name = 'author', type = 'string'},
    ]
    [sources.authors]
    url = 'raw/authors'
    format = 'json'
    [sources.authors.contract]
    columns = [
        {name = 'name', type = 'string', nullable = false},
        {name = 'id', type = 'bigint'},
        {name = 'birth_date', type = 'date'},
    ]
    [transform]
    sql = '''
        SELECT b.title, b.publish_date, b.author AS author_name, a.birth_date AS author_birth_date, a.id AS author_id
        FROM books b LEFT JOIN authors a ON a.name = b.author
    '''
    [target]
    url = 'lake/books'
    mode = 'replace'
    [target.contract]
    grain = ['title']
    columns = [
        {name = 'title', type = 'string', nullable = false},
        {name = 'publish_date', type = 'date'},
        {name = 'author_name', type = 'string'},
        {name = 'author_birth_date', type = 'date'},
        {name = 'author_id', type = 'bigint'},
    ]
";

async fn lab(books: &str, authors: &str) -> Lab {
    let lab = Lab::new();
    lab.put("raw/books/1.json", books).await;
    lab.put("raw/authors/1.json", authors).await;
    lab
}

#[tokio::test]
async fn join_keeps_books_without_a_known_author() {
    let book = "{\"title\":\"t\",\"publish_date\":\"2022-02-04\",\"author\":\"a\"}\n";
    for (author, birth, id) in [("a", "1994-04-03", "34"), ("not_a", "null", "null")] {
        let lab = lab(book, &format!("{{\"name\":\"{author}\",\"id\":34,\"birth_date\":\"1994-04-03\"}}\n")).await;
        lab.run(BOOKS).await.unwrap();
        let want = format!(
            "title:string | publish_date:date | author_name:string | author_birth_date:date | author_id:bigint\n\
             t            | 2022-02-04        | a                  | {birth:<22} | {id}"
        );
        assert_eq!(lab.rows("lake/books").await.trim(), want);
    }
}

const SAMPLE_BOOKS: &str = r#"{"title":"Catch 22","publish_date":"1961-11-10","author":"Joseph Heller"}
{"title":"The Fellowship of the Ring","publish_date":"1954-07-29","author":"J.R.R Tolkien"}
{"title":"The Two Towers","publish_date":"1954-11-11","author":"J.R.R Tolkien"}
{"title":"The Return of King","publish_date":"1955-10-20","author":"J.R.R Tolkien"}
{"title":"The Crystal Shard","publish_date":"1988-08-01","author":"R. A. Salvatore"}
"#;

const SAMPLE_AUTHORS: &str = r#"{"name":"Joseph Heller","id":1,"birth_date":"1923-05-01"}
{"name":"J.R.R Tolkien","id":2,"birth_date":"1892-01-03"}
{"name":"R. A. Salvatore","id":3,"birth_date":"1959-01-20"}
"#;

#[tokio::test]
async fn rerun_without_new_input_leaves_the_joined_table_unchanged() {
    let lab = lab(SAMPLE_BOOKS, SAMPLE_AUTHORS).await;
    lab.run(BOOKS).await.unwrap();
    let rows = lab.rows("lake/books").await;
    assert_eq!(rows.lines().count(), 6, "{rows}");
    for row in [
        "Catch 22                   | 1961-11-10        | Joseph Heller      | 1923-05-01             | 1",
        "The Crystal Shard          | 1988-08-01        | R. A. Salvatore    | 1959-01-20             | 3",
        "The Return of King         | 1955-10-20        | J.R.R Tolkien      | 1892-01-03             | 2",
    ] {
        assert!(rows.contains(row), "{row}\n{rows}");
    }
    let paths = lab.paths("lake/books").await;
    assert_eq!(lab.run(BOOKS).await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(lab.paths("lake/books").await, paths);
    // A new object in one source: the table is built from all objects of both sources.
    lab.put(
        "raw/books/2.json",
        "{\"title\":\"Something Happened\",\"publish_date\":\"1974-10-01\",\"author\":\"Joseph Heller\"}\n",
    )
    .await;
    lab.run(BOOKS).await.unwrap();
    assert_eq!(lab.rows("lake/books").await.lines().count(), 7);
}

#[tokio::test]
async fn duplicate_join_keys_stop_the_run() {
    let lab = lab(SAMPLE_BOOKS, SAMPLE_AUTHORS).await;
    lab.run(BOOKS).await.unwrap();
    let before = lab.rows("lake/books").await;
    lab.put("raw/authors/2.json", "{\"name\":\"J.R.R Tolkien\",\"id\":4,\"birth_date\":\"1924-11-21\"}\n").await;
    let e = lab.run(BOOKS).await.unwrap_err();
    assert!(e.code() == "NotUnique" && e.message().contains("3 rows break the rule: `title` is unique"), "{e}");
    assert_eq!(lab.rows("lake/books").await, before);
}

#[tokio::test]
async fn invalid_date_stops_the_run_and_leaves_the_table() {
    let lab = lab(SAMPLE_BOOKS, SAMPLE_AUTHORS).await;
    lab.run(BOOKS).await.unwrap();
    let before = lab.rows("lake/books").await;
    lab.put("raw/books/2.json", "{\"title\":\"t\",\"publish_date\":\"04/02/2022\",\"author\":\"a\"}\n").await;
    let e = lab.run(BOOKS).await.unwrap_err();
    assert_eq!((e.code(), e.column(), e.file()), ("BadDate", Some("publish_date"), Some("/raw/books/2.json")));
    assert_eq!(lab.rows("lake/books").await, before);
}

#[tokio::test]
async fn invalid_query_names_the_reason() {
    let lab = lab(SAMPLE_BOOKS, SAMPLE_AUTHORS).await;
    for (sql, said) in [
        ("SELECT nothing FROM books", "nothing"),
        ("SELECT * FROM elsewhere", "elsewhere"),
        ("DROP TABLE books", "DDL not supported"),
        ("SELEKT 1", "SELEKT"),
    ] {
        let start = BOOKS.find("sql = '''").unwrap();
        let end = BOOKS[start + 10..].find("'''").unwrap() + start + 13;
        let job = format!("{}sql = '{sql}'{}", &BOOKS[..start], &BOOKS[end..]);
        let e = lab.run(&job).await.unwrap_err();
        assert!(e.code() == "InvalidSql" && e.message().contains(said), "{sql}: {e}");
    }
}

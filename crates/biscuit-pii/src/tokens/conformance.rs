use std::collections::HashSet;
use std::sync::Arc;

use crate::tokens::store::{TokenRecord, TokenStore};

/// Tests that an empty [`TokenStore`] behaves as its documentation requires.
///
/// # Panics
/// If the store violates one of the requirements.
pub async fn store_conformance(store: Arc<dyn TokenStore>) {
    let record = |key: &str, value: &str, alias: Option<&str>| TokenRecord {
        key: key.into(),
        value: value.into(),
        alias: alias.map(Into::into),
    };
    let get = async |keys: &[&str]| {
        let keys: Vec<String> = keys.iter().map(|key| (*key).into()).collect();
        store.get(&keys).await.expect("the read succeeds")
    };
    assert_eq!(get(&[]).await, [], "no keys");
    assert_eq!(get(&["a"]).await, [None], "the store is empty");
    assert_eq!(store.insert(vec![]).await.expect("an insert of no records succeeds"), []);

    let (a, b) = (record("a", "1", Some("x")), record("b", "", None));
    assert_eq!(store.insert(vec![a.clone(), b.clone()]).await.expect("the insert succeeds"), [a.clone(), b.clone()]);
    let other =
        store.insert(vec![record("a", "2", Some("y")), record("c", "3", None)]).await.expect("the insert succeeds");
    assert_eq!(other, [a.clone(), record("c", "3", None)], "the first record wins, and the loser gets it");
    assert_eq!(get(&["b", "a", "none", "a"]).await, [Some(b), Some(a.clone()), None, Some(a.clone())]);

    let found = eventually(async || {
        let found = store.find(&["x".into(), "y".into()]).await.expect("the search succeeds");
        found[0].is_some().then_some(found)
    });
    assert_eq!(found.await, [Some(a), None], "the alias of a record that lost is unknown");

    store.replace(record("a", "9", None)).await.expect("the replacement succeeds");
    assert_eq!(get(&["a"]).await, [Some(record("a", "9", None))]);
    eventually(async || store.find(&["x".into()]).await.expect("the search succeeds")[0].is_none().then_some(())).await;

    let many: Vec<TokenRecord> = (0..250).map(|n| record(&format!("many-{n}"), &n.to_string(), None)).collect();
    assert_eq!(
        store.insert(many.clone()).await.expect("the insert succeeds"),
        many,
        "more records than fit into one request"
    );
    let keys: Vec<String> = many.iter().map(|record| record.key.clone()).collect();
    let there: Vec<TokenRecord> = store.get(&keys).await.expect("the read succeeds").into_iter().flatten().collect();
    assert_eq!(there, many);
    check_one_winner(&store).await;
}

/// Tests that exactly one of many concurrent inserts with the same key wins.
async fn check_one_winner(store: &Arc<dyn TokenStore>) {
    for round in 0..8 {
        let contend = |n: usize| {
            let (store, key) = (store.clone(), format!("race-{round}"));
            tokio::spawn(async move {
                let mine =
                    TokenRecord { key, value: n.to_string().into_bytes(), alias: Some(format!("race-{round}-{n}")) };
                store.insert(vec![mine]).await.expect("the insert succeeds").remove(0)
            })
        };
        let mut winners = HashSet::new();
        for task in (0..16).map(contend).collect::<Vec<_>>() {
            winners.insert(task.await.expect("the task does not panic").value);
        }
        assert_eq!(winners.len(), 1, "all inserts of a key return the same record");
    }
}

/// Repeats a check until it returns a value, for at most five seconds. Some stores find a new alias only after a
/// delay.
async fn eventually<T>(mut of: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..100 {
        if let Some(there) = of().await {
            return there;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the expected result did not occur within five seconds")
}

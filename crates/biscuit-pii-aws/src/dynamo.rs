//! A token store in a DynamoDB table. The first write of a key wins by a condition on each put; reads are consistent
//! batches.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType,
    KeysAndAttributes, Projection, ProjectionType, ReturnValuesOnConditionCheckFailure, ScalarAttributeType,
    TableStatus,
};
use biscuit_core::{Error, Result};
use biscuit_pii::tokens::{TokenRecord, TokenStore};
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::codes;
use crate::error::failed;

/// Maximum number of keys of `BatchGetItem` (API reference of DynamoDB).
const BATCH: usize = 100;
/// Maximum number of concurrent requests.
const AT_ONCE: usize = 16;
/// Maximum number of requests for keys that DynamoDB did not process. The pauses between them double, from the first
/// to the longest.
const TRIES: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Maximum number of searches for a record by its alias: the index is updated after the table.
const LOOKS: u32 = 5;

const KEY: &str = "pk";
const VALUE: &str = "v";
const ALIAS: &str = "t";
const INDEX: &str = "by-token";

/// Token store in a DynamoDB table, for any number of processes.
///
/// The table has the partition key `pk` (a string). To find records by token, it has an index `by-token` on `t` (a
/// string) with all attributes. A first write is a `PutItem` with the condition that the key does not exist. Batch
/// writes of DynamoDB have no conditions and are not used.
#[derive(Debug, Clone)]
pub struct DynamoStore {
    client: Client,
    table: String,
}

impl DynamoStore {
    /// Creates a store in an existing table.
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    /// Creates the table with on-demand billing, unless it exists, and waits up to five minutes until it is active.
    ///
    /// # Errors
    /// `Refused`, `ServiceUnavailable` or `NoCredentials`.
    pub async fn create_table(&self) -> Result<()> {
        let built = |e| Error::internal("cannot build the description of a table").with_source(e);
        let text = |name| {
            let attribute = AttributeDefinition::builder().attribute_name(name);
            attribute.attribute_type(ScalarAttributeType::S).build().map_err(built)
        };
        let hash =
            |name| KeySchemaElement::builder().attribute_name(name).key_type(KeyType::Hash).build().map_err(built);
        let index = GlobalSecondaryIndex::builder().index_name(INDEX).key_schema(hash(ALIAS)?);
        let all = Projection::builder().projection_type(ProjectionType::All).build();
        let index = index.projection(all).build().map_err(built)?;
        let ask = self.client.create_table().table_name(&self.table).billing_mode(BillingMode::PayPerRequest);
        let ask = ask.key_schema(hash(KEY)?).attribute_definitions(text(KEY)?).attribute_definitions(text(ALIAS)?);
        if let Err(e) = ask.global_secondary_indexes(index).send().await
            && !e.as_service_error().is_some_and(|e| e.is_resource_in_use_exception())
        {
            return Err(self.request_error("create", |doing| failed!(aws_sdk_dynamodb, doing, e)));
        }
        for _ in 0..600 {
            let answer = self.client.describe_table().table_name(&self.table).send().await;
            let answer =
                answer.map_err(|e| self.request_error("describe", |doing| failed!(aws_sdk_dynamodb, doing, e)))?;
            if answer.table.and_then(|table| table.table_status) == Some(TableStatus::Active) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let message = format!("the DynamoDB table `{}` is not active after five minutes; run again", self.table);
        Err(Error::new(codes::SERVICE_UNAVAILABLE, message))
    }

    fn request_error(&self, doing: &str, e: impl FnOnce(&str) -> Error) -> Error {
        e(&format!("{doing} the DynamoDB table `{}`", self.table))
    }

    /// Reads up to 100 records with different keys.
    async fn fetch_batch(&self, keys: Vec<String>) -> Result<Vec<TokenRecord>> {
        let (mut found, mut wanted) = (vec![], keys.iter().map(|key| key_of(key)).collect::<Vec<_>>());
        for tried in 0..TRIES {
            let ask = KeysAndAttributes::builder().set_keys(Some(wanted)).consistent_read(true).build();
            let ask = ask.map_err(|e| Error::internal("cannot build a request for keys").with_source(e))?;
            let answer = self.client.batch_get_item().request_items(&self.table, ask).send().await;
            let answer = answer.map_err(|e| self.request_error("read", |doing| failed!(aws_sdk_dynamodb, doing, e)))?;
            let items = answer.responses.unwrap_or_default().remove(&self.table).unwrap_or_default();
            for item in items {
                found.push(self.parse_record(&item)?);
            }
            wanted = answer.unprocessed_keys.unwrap_or_default().remove(&self.table).map_or(vec![], |left| left.keys);
            if wanted.is_empty() {
                return Ok(found);
            }
            tracing::debug!(
                table = self.table,
                unprocessed = wanted.len(),
                "DynamoDB did not process all keys; requesting the others again"
            );
            tokio::time::sleep(backoff(tried)).await;
        }
        let message = format!(
            "the DynamoDB table `{}` has not processed {} of {} keys after {TRIES} requests; increase its \
            read capacity",
            self.table,
            wanted.len(),
            keys.len()
        );
        Err(Error::new(codes::SERVICE_UNAVAILABLE, message))
    }

    /// Inserts a record unless its key exists, and returns the record that the table then has.
    async fn put_new(&self, record: TokenRecord) -> Result<TokenRecord> {
        let ask = self.client.put_item().table_name(&self.table).set_item(Some(item_of(&record)));
        let ask = ask.condition_expression(format!("attribute_not_exists({KEY})"));
        let ask = ask.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let e = match ask.send().await {
            Ok(_) => return Ok(record),
            Err(e) => e,
        };
        match e.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(lost)) => match lost.item() {
                Some(item) => self.parse_record(item),
                // Some services do not return the existing item with the failed condition, so it is read.
                None => self.fetch_batch(vec![record.key]).await?.pop().ok_or_else(|| {
                    let message = format!(
                        "a record of the DynamoDB table `{}` was deleted while it was read; run again",
                        self.table
                    );
                    Error::new(codes::RECORD_GONE, message)
                }),
            },
            _ => Err(self.request_error("write to", |doing| failed!(aws_sdk_dynamodb, doing, e))),
        }
    }

    /// Finds the record with an alias.
    async fn find_one(&self, alias: &str) -> Result<Option<TokenRecord>> {
        for look in 0..LOOKS {
            let ask = self.client.query().table_name(&self.table).index_name(INDEX);
            let ask = ask.key_condition_expression("#t = :t").expression_attribute_names("#t", ALIAS);
            let answer = ask.expression_attribute_values(":t", AttributeValue::S(alias.to_owned())).send().await;
            let answer = answer.map_err(|e| {
                self.request_error("query the index `by-token` of", |doing| failed!(aws_sdk_dynamodb, doing, e))
            })?;
            // A token may have a record for several versions of the root keys; the greatest key is taken.
            let records = answer
                .items
                .unwrap_or_default()
                .iter()
                .map(|item| self.parse_record(item))
                .collect::<Result<Vec<_>>>()?;
            if let Some(record) = records.into_iter().max_by(|a, b| a.key.cmp(&b.key)) {
                return Ok(Some(record));
            }
            if look + 1 < LOOKS {
                tokio::time::sleep(backoff(look)).await;
            }
        }
        Ok(None)
    }

    fn parse_record(&self, item: &HashMap<String, AttributeValue>) -> Result<TokenRecord> {
        let text = |name| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        let value = item.get(VALUE).and_then(|value| value.as_b().ok());
        match (text(KEY), value) {
            (Some(key), Some(value)) => Ok(TokenRecord { key, value: value.as_ref().to_vec(), alias: text(ALIAS) }),
            _ => {
                let message = format!(
                    "an item of the DynamoDB table `{}` is not a token record; use a table that has no other purpose",
                    self.table
                );
                Err(Error::new(biscuit_pii::codes::INVALID_RECORD, message))
            }
        }
    }
}

/// Returns the pause after a request: exponential backoff.
fn backoff(tried: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << tried.min(16)).min(LONGEST_PAUSE)
}

fn key_of(key: &str) -> HashMap<String, AttributeValue> {
    HashMap::from([(KEY.to_owned(), AttributeValue::S(key.to_owned()))])
}

fn item_of(record: &TokenRecord) -> HashMap<String, AttributeValue> {
    let mut item = key_of(&record.key);
    item.insert(VALUE.into(), AttributeValue::B(Blob::new(record.value.clone())));
    if let Some(alias) = &record.alias {
        item.insert(ALIAS.into(), AttributeValue::S(alias.clone()));
    }
    item
}

#[async_trait]
impl TokenStore for DynamoStore {
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        // DynamoDB refuses a request that contains a key twice.
        let distinct: Vec<String> = keys.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
        let batches: Vec<Vec<String>> = distinct.chunks(BATCH).map(<[String]>::to_vec).collect();
        let found = stream::iter(batches.into_iter().map(|batch| self.fetch_batch(batch))).buffer_unordered(AT_ONCE);
        let found: Vec<Vec<TokenRecord>> = found.try_collect().await?;
        let found: HashMap<String, TokenRecord> = found.into_iter().flatten().map(|r| (r.key.clone(), r)).collect();
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    async fn find(&self, aliases: &[String]) -> Result<Vec<Option<TokenRecord>>> {
        let looks: Vec<_> = aliases.iter().map(|alias| self.find_one(alias)).collect();
        stream::iter(looks).buffered(AT_ONCE).try_collect().await
    }

    async fn insert(&self, records: Vec<TokenRecord>) -> Result<Vec<TokenRecord>> {
        stream::iter(records.into_iter().map(|record| self.put_new(record))).buffered(AT_ONCE).try_collect().await
    }

    async fn replace(&self, record: TokenRecord) -> Result<()> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item_of(&record))).send().await;
        put.map(drop).map_err(|e| self.request_error("write to", |doing| failed!(aws_sdk_dynamodb, doing, e)))
    }
}

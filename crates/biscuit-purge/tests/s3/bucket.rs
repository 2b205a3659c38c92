//! A bucket in this process that answers like S3. It also does what no test server does, such as conditional deletes
//! in batches.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use biscuit_purge::S3Store;

/// Content of the bucket, its abilities, and the requests that it got.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// ETags by key.
    pub(crate) objects: BTreeMap<String, String>,
    /// Whether deletes in batches compare ETags.
    pub(crate) conditional_batches: bool,
    /// Whether deletes in batches are refused as not implemented.
    pub(crate) no_batches: bool,
    /// Whether single deletes compare ETags.
    pub(crate) conditional_single: bool,
    /// Codes with which deletes of a key fail, one code for each attempt.
    pub(crate) errors: HashMap<String, Vec<&'static str>>,
    /// Keys that answers to deletes in batches omit.
    pub(crate) silent: Vec<String>,
    /// Bodies of deletes in batches.
    pub(crate) batches: Vec<String>,
    /// Number of single deletes.
    pub(crate) singles: u32,
    /// Query strings of listings.
    pub(crate) lists: Vec<String>,
    /// Number of deletes in batches that run now, and its maximum.
    pub(crate) in_flight: (usize, usize),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Bucket(pub(crate) Arc<Mutex<World>>);

const ENDPOINT: &str = "http://127.0.0.1:9";
/// Time of modification of every object.
const MODIFIED: &str = "2024-02-29T12:00:00.000Z";
/// Number of keys in a page of a listing.
const PAGE: usize = 1000;

impl Bucket {
    /// Creates a bucket with these keys.
    pub(crate) fn with(keys: impl IntoIterator<Item = String>) -> Self {
        let bucket = Self::default();
        bucket.world(|w| w.objects = keys.into_iter().map(|k| (k, etag(1))).collect());
        bucket
    }

    pub(crate) fn world<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        f(&mut self.0.lock().expect("no other test panicked while it had the lock"))
    }

    pub(crate) fn store(&self) -> S3Store {
        let bucket = self.clone();
        let http = http_client_fn(move |_, _| SharedHttpConnector::new(bucket.clone()));
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .endpoint_url(ENDPOINT)
            .force_path_style(true)
            .http_client(http)
            .build();
        S3Store::new(aws_sdk_s3::Client::from_conf(config), "b")
    }

    fn answer(&self, request: &HttpRequest) -> HttpResponse {
        let uri = request.uri().strip_prefix(ENDPOINT).expect("requests go to the endpoint");
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let key = decode(path.strip_prefix("/b").unwrap_or("").trim_start_matches('/'));
        let asked = |name: &str| query.split('&').any(|p| p.split('=').next() == Some(name));
        self.world(|w| match request.method() {
            "PUT" => {
                w.objects.insert(key, etag(7));
                respond(200, "")
            }
            "HEAD" => match w.objects.get(&key) {
                None => respond(404, ""),
                Some(etag) => {
                    let mut found = respond(200, "");
                    found.headers_mut().insert("ETag", etag.clone());
                    found.headers_mut().insert("Last-Modified", "Thu, 29 Feb 2024 12:00:00 GMT");
                    found
                }
            },
            "DELETE" => {
                w.singles += 1;
                let condition = request.headers().get("if-match").filter(|_| w.conditional_single);
                match (w.objects.get(&key), condition) {
                    (Some(etag), Some(c)) if etag != c => {
                        respond(412, "<Error><Code>PreconditionFailed</Code></Error>")
                    }
                    (None, Some(_)) => respond(404, "<Error><Code>NoSuchKey</Code></Error>"),
                    _ => {
                        w.objects.remove(&key);
                        respond(204, "")
                    }
                }
            }
            "POST" if w.no_batches => respond(501, "<Error><Code>NotImplemented</Code></Error>"),
            "POST" if asked("delete") => {
                let body = String::from_utf8_lossy(request.body().bytes().expect("the body is in memory")).into_owned();
                let answer = w.delete(&body);
                w.batches.push(body);
                respond(200, &answer)
            }
            "GET" => {
                let answer = w.list(query);
                w.lists.push(query.to_owned());
                respond(200, &answer)
            }
            other => panic!("{other} {uri}"),
        })
    }
}

impl HttpConnector for Bucket {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let bucket = self.clone();
        HttpConnectorFuture::new(async move {
            let batch = request.method() == "POST";
            if batch {
                bucket.world(|w| {
                    w.in_flight.0 += 1;
                    w.in_flight.1 = w.in_flight.1.max(w.in_flight.0);
                });
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                bucket.world(|w| w.in_flight.0 -= 1);
            }
            Ok(bucket.answer(&request))
        })
    }
}

impl World {
    fn delete(&mut self, body: &str) -> String {
        let mut out = "<DeleteResult>".to_owned();
        for object in body.split("<Object>").skip(1) {
            let field = |name: &str| {
                let (_, rest) = object.split_once(&format!("<{name}>"))?;
                Some(unescape(rest.split_once(&format!("</{name}>"))?.0))
            };
            let key = field("Key").expect("the record has the key");
            if self.silent.contains(&key) {
                continue;
            }
            let asked = field("ETag").filter(|_| self.conditional_batches);
            let error = self.errors.get_mut(&key).and_then(Vec::pop);
            let stale = self.objects.get(&key).zip(asked).is_some_and(|(has, asked)| *has != asked);
            let error = error.or(stale.then_some("PreconditionFailed"));
            let name = escape(&key);
            match error {
                Some(code) => {
                    let error = format!("<Error><Key>{name}</Key><Code>{code}</Code><Message>no</Message></Error>");
                    out.push_str(&error);
                }
                None => {
                    self.objects.remove(&key);
                    out.push_str(&format!("<Deleted><Key>{name}</Key></Deleted>"));
                }
            }
        }
        out + "</DeleteResult>"
    }

    fn list(&self, query: &str) -> String {
        let asked: HashMap<String, String> =
            query.split('&').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), decode(v))).collect();
        let get = |name: &str| asked.get(name).map_or("", String::as_str);
        let (prefix, delimiter) = (get("prefix"), get("delimiter"));
        let after = asked.get("continuation-token").map_or_else(|| get("start-after"), String::as_str);
        let (mut out, mut entries, mut last) = (String::new(), 0, String::new());
        let mut truncated = false;
        for (key, etag) in self.objects.range(prefix.to_owned()..).filter(|(k, _)| k.as_str() > after) {
            let Some(rest) = key.strip_prefix(prefix) else { break };
            let folder = rest.split_once(delimiter).filter(|_| !delimiter.is_empty());
            let folder = folder.map(|(folder, _)| format!("{prefix}{folder}{delimiter}"));
            if folder.as_ref().is_some_and(|f| *f == last || after.starts_with(f.as_str())) {
                continue;
            }
            if entries == PAGE {
                truncated = true;
                break;
            }
            entries += 1;
            match folder {
                Some(folder) => {
                    out.push_str(&format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escape(&folder)));
                    last = folder;
                }
                None => {
                    let (name, tag) = (escape(key), escape(etag));
                    out.push_str(&format!(
                        "<Contents><Key>{name}</Key><Size>3</Size><ETag>{tag}</ETag><LastModified>{MODIFIED}</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
                    ));
                    last.clone_from(key);
                }
            }
        }
        let token = if truncated {
            format!("<NextContinuationToken>{}</NextContinuationToken>", escape(&last))
        } else {
            String::new()
        };
        format!("<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{token}{out}</ListBucketResult>")
    }
}

fn respond(status: u16, body: &str) -> HttpResponse {
    HttpResponse::new(status.try_into().expect("the status is complete"), SdkBody::from(body))
}

/// Returns the ETag of content number `n`.
pub(crate) fn etag(n: u32) -> String {
    format!("\"{n:032x}\"")
}

fn decode(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            out.push(u8::from_str_radix(&text[at + 1..at + 3], 16).expect("the percent code is valid"));
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    String::from_utf8(out).expect("keys are text")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&apos;", "'").replace("&amp;", "&")
}

//! Listings of objects, versions and unfinished uploads with the S3 API.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::Object;
use biscuit_core::Result;
use futures::{StreamExt, TryStreamExt, stream};

use crate::keys::folder_prefix;
use crate::listed::{ListedObject, MultipartUpload, VersionKind};
use crate::listing::ObjectListing;
use crate::s3::error::s3_error;
use crate::s3::{S3Store, to_instant};

/// Maximum number of listings at the same time, each of a different folder.
const IN_FLIGHT: usize = 16;
/// Maximum number of levels that are listed folder by folder to find [`IN_FLIGHT`] folders.
const LEVELS: usize = 8;

fn to_listed_object(object: &Object) -> Option<ListedObject> {
    Some(ListedObject {
        modified: object.last_modified().and_then(to_instant),
        storage_class: object.storage_class().map(|c| c.as_str().to_owned()),
        ..ListedObject::new(
            object.key()?,
            u64::try_from(object.size().unwrap_or(0)).unwrap_or(0),
            object.e_tag().map(str::to_owned),
        )
    })
}

impl S3Store {
    async fn list_page(
        &self,
        prefix: &str,
        folders: bool,
        after: Option<&str>,
        token: Option<String>,
    ) -> Result<ListObjectsV2Output> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix);
        let list = list.set_start_after(after.map(str::to_owned)).set_continuation_token(token);
        let list = list.set_delimiter(folders.then(|| "/".to_owned())).set_request_payer(self.payer.clone());
        list.send().await.map_err(|e| s3_error("list", self.describe_key(prefix), e))
    }

    /// Lists the objects below a prefix. With `folders`, lists only the objects directly below it, and returns the
    /// folders directly below it as well.
    async fn list_prefix(&self, prefix: &str, folders: bool) -> Result<(ObjectListing, Vec<String>)> {
        let (mut listing, mut below, mut token) = (ObjectListing::default(), Vec::new(), None);
        loop {
            let page = self.list_page(prefix, folders, None, token).await?;
            page.contents().iter().filter_map(to_listed_object).for_each(|object| listing.push(&object));
            below.extend(page.common_prefixes().iter().filter_map(|p| p.prefix().map(str::to_owned)));
            token = page.next_continuation_token().map(str::to_owned);
            if !page.is_truncated().unwrap_or(false) || token.is_none() {
                return Ok((listing, below));
            }
        }
    }

    /// Lists a prefix, with several folders at the same time.
    ///
    /// S3 lists a prefix page by page, one after the other. To list a large tree in parallel, it is searched
    /// breadth-first for a level with at least [`IN_FLIGHT`] folders; each of these is then listed as a whole.
    /// Objects above that level are collected on the way, so that none is missed or listed twice.
    pub(super) async fn list_objects(&self, prefix: &str) -> Result<ObjectListing> {
        let (mut all, mut folders) = (ObjectListing::default(), vec![folder_prefix(prefix)]);
        for _ in 0..LEVELS {
            let mut level =
                stream::iter(folders).map(|f| async move { self.list_prefix(&f, true).await }).buffered(IN_FLIGHT);
            let mut below = Vec::new();
            while let Some((objects, prefixes)) = level.try_next().await? {
                all.append(objects);
                below.extend(prefixes);
            }
            folders = below;
            if folders.is_empty() || folders.len() >= IN_FLIGHT {
                break;
            }
        }
        let mut rest =
            stream::iter(folders).map(|f| async move { self.list_prefix(&f, false).await }).buffered(IN_FLIGHT);
        while let Some((objects, _)) = rest.try_next().await? {
            all.append(objects);
        }
        Ok(all)
    }

    /// Lists every version and delete marker below a prefix.
    pub(super) async fn list_versions(&self, prefix: &str) -> Result<ObjectListing> {
        let prefix = folder_prefix(prefix);
        let (mut listing, mut key, mut version) = (ObjectListing::default(), None, None);
        loop {
            let list = self.client.list_object_versions().bucket(&self.bucket).prefix(&prefix);
            let list = list.set_key_marker(key.take()).set_version_id_marker(version.take());
            let list = list.set_request_payer(self.payer.clone());
            let page =
                list.send().await.map_err(|e| s3_error("list the versions of", self.describe_key(&prefix), e))?;
            for v in page.versions() {
                let Some(name) = v.key() else { continue };
                let form = if v.is_latest().unwrap_or(false) { VersionKind::Current } else { VersionKind::Noncurrent };
                listing.push(&ListedObject {
                    version: Some(v.version_id().unwrap_or("null").to_owned()),
                    modified: v.last_modified().and_then(to_instant),
                    storage_class: v.storage_class().map(|c| c.as_str().to_owned()),
                    form,
                    ..ListedObject::new(
                        name,
                        u64::try_from(v.size().unwrap_or(0)).unwrap_or(0),
                        v.e_tag().map(str::to_owned),
                    )
                });
            }
            for m in page.delete_markers() {
                let Some(name) = m.key() else { continue };
                listing.push(&ListedObject {
                    version: Some(m.version_id().unwrap_or("null").to_owned()),
                    modified: m.last_modified().and_then(to_instant),
                    form: VersionKind::DeleteMarker,
                    ..ListedObject::new(name, 0, None)
                });
            }
            (key, version) =
                (page.next_key_marker().map(str::to_owned), page.next_version_id_marker().map(str::to_owned));
            if !page.is_truncated().unwrap_or(false) || key.is_none() {
                return Ok(listing);
            }
        }
    }

    /// Lists the unfinished uploads below a prefix.
    pub(super) async fn list_uploads(&self, prefix: &str) -> Result<Vec<MultipartUpload>> {
        let prefix = folder_prefix(prefix);
        let (mut uploads, mut key, mut id) = (Vec::new(), None, None);
        loop {
            let list = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(&prefix);
            let list = list.set_key_marker(key.take()).set_upload_id_marker(id.take());
            let page = list.set_request_payer(self.payer.clone()).send().await;
            let page = page.map_err(|e| s3_error("list the unfinished uploads of", self.describe_key(&prefix), e))?;
            for upload in page.uploads() {
                if let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) {
                    let begun = upload.initiated().and_then(to_instant);
                    uploads.push(MultipartUpload { key: key.to_owned(), id: id.to_owned(), begun });
                }
            }
            (key, id) = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
            if !page.is_truncated().unwrap_or(false) || key.is_none() {
                return Ok(uploads);
            }
        }
    }

    /// Returns the present state of the given objects, which must be sorted by key and in one folder. One listing
    /// from the first to the last key is much cheaper than a request for each object.
    pub(super) async fn list_again(&self, objects: &[&ListedObject]) -> Result<Vec<ListedObject>> {
        let ([first, ..], [.., last]) = (objects, objects) else { return Ok(vec![]) };
        let (first, last) = (first.key(), last.key());
        let same = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
        let same = (0..=same).rev().find(|&at| first.is_char_boundary(at)).unwrap_or(0);
        // `start-after` is exclusive. The first key without its last character sorts before it, so the listing
        // includes it.
        let before = first.char_indices().last().map(|(at, _)| &first[..at]);
        let (mut found, mut token) = (Vec::new(), None);
        loop {
            let page = self.list_page(&first[..same], false, before, token).await?;
            for object in page.contents().iter().filter_map(to_listed_object) {
                if object.key() > last {
                    return Ok(found);
                }
                if objects.binary_search_by(|o| o.key().cmp(object.key())).is_ok() {
                    found.push(object);
                }
            }
            token = page.next_continuation_token().map(str::to_owned);
            if !page.is_truncated().unwrap_or(false) || token.is_none() {
                return Ok(found);
            }
        }
    }
}

use std::cmp::Reverse;

use crate::detect::hit::PiiHit;

/// Merges the overlapping hits of a text and returns the hits in order.
///
/// The merged hit covers all of its hits, so that no end of one remains in the text. It has the entity type of the
/// longest hit; among equally long hits the likeliest wins, then the first by name. Hits that only touch are not
/// merged.
pub fn without_overlaps(mut hits: Vec<PiiHit>) -> Vec<PiiHit> {
    // A sweep in the order of beginnings, as for the union of intervals: a hit either begins inside of the last
    // merged range and extends it, or begins a new one. Each entry has the merged range and the best hit in it.
    hits.sort_by_key(|hit| (hit.range.start, hit.range.end));
    let mut out: Vec<(PiiHit, PiiHit)> = Vec::new();
    for hit in hits {
        match out.last_mut() {
            Some((whole, best)) if hit.range.start < whole.range.end => {
                whole.range.end = whole.range.end.max(hit.range.end);
                if hit_rank(&hit) < hit_rank(best) {
                    *best = hit;
                }
            }
            _ => out.push((hit.clone(), hit)),
        }
    }
    out.into_iter().map(|(whole, best)| PiiHit { range: whole.range, ..best }).collect()
}

fn hit_rank(hit: &PiiHit) -> impl Ord + use<'_> {
    (Reverse(hit.range.len()), Reverse(hit.likelihood), &hit.entity, hit.range.start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::detect::entity::EntityType;
    use crate::detect::hit::Likelihood;

    fn any_hit() -> impl Strategy<Value = PiiHit> {
        let likelihood = prop_oneof![Just(Likelihood::Possible), Just(Likelihood::Likely), Just(Likelihood::Certain)];
        let entity = prop_oneof![Just(EntityType::URL), Just(EntityType::EMAIL_ADDRESS), Just(EntityType::IP_ADDRESS)];
        (entity, 0_usize..40, 1_usize..12, likelihood).prop_map(|(e, at, n, l)| PiiHit::new(e, at..at + n, l))
    }

    proptest! {
        #[test]
        fn covered_bytes_remain_covered_exactly_once_in_any_input_order(hits in prop::collection::vec(any_hit(), 0..12), seed in any::<u64>()) {
            let out = without_overlaps(hits.clone());
            for byte in 0..60 {
                let inside = |h: &&PiiHit| h.range.contains(&byte);
                let count = out.iter().filter(inside).count();
                prop_assert_eq!(count, usize::from(hits.iter().any(|h| inside(&h))));
            }
            let mut other = hits;
            let half = other.len().max(1);
            other.rotate_left(usize::try_from(seed).unwrap_or(0) % half);
            other.reverse();
            prop_assert_eq!(without_overlaps(other), out);
        }
    }
}

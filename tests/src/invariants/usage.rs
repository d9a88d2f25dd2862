//! What usage says is the sum of the rows.

use std::collections::BTreeMap;

use store::{UsagePoint, model::Row};

use super::Violation;

const LAW: &str = "usage equals the sum of the rows";

/// Compares each account's usage with the rows of the same node.
///
/// # Errors
/// An account whose numbers differ.
pub fn usage_is_the_sum_of_the_rows(
    node: &str,
    rows: &[Row],
    usage: &BTreeMap<String, Vec<UsagePoint>>,
) -> Result<(), Violation> {
    for (account, points) in usage {
        let of_account = rows.iter().filter(|row| row.account.as_str() == account);
        let (requests, bytes_in) =
            of_account.fold((0, 0), |(requests, bytes), row| (requests + u64::from(row.count), bytes + row.bytes_in));
        let counted: u64 = points.iter().map(|point| point.counters.requests).sum();
        let counted_bytes: u64 = points.iter().map(|point| point.counters.bytes_in).sum();
        if (counted, counted_bytes) != (requests, bytes_in) {
            return Err(Violation {
                law: LAW,
                what: format!(
                    "{account} on {node}: usage says {counted} requests and {counted_bytes} bytes, the rows {requests} and {bytes_in}"
                ),
            });
        }
    }
    Ok(())
}

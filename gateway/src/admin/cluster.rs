//! `/v1/cluster`: the cluster as this node sees it.

use axum::{extract::State, response::Response};
use serde_json::{Value, json};
use store::{ClusterStatus, Readiness, model::Timestamp};

use super::{Shared, access::Visitor, answer, params::Params, problem::Result};
use crate::tls::Certificate;

/// `GET /v1/cluster`
pub(crate) async fn get(visitor: Visitor, State(admin): Shared, params: Params) -> Result<Response> {
    visitor.require_staff()?;
    params.finish()?;
    let reason = match admin.store.readiness() {
        Readiness::Ready => None,
        Readiness::NotReady(reason) => Some(reason),
    };
    Ok(answer::plain(&view(&admin.store.cluster(), reason.as_deref(), &admin.certificates.all())))
}

fn view(status: &ClusterStatus, not_ready: Option<&str>, certificates: &[Certificate]) -> Value {
    let nodes: Vec<Value> = status
        .members
        .iter()
        .map(|member| {
            json!({
                "id": member.id,
                "name": member.info.name,
                "peer_addr": member.info.peer_addr,
                "admin_addr": member.info.admin_addr,
                "data_addr": member.info.data_addr,
                "region": Some(&member.info.region).filter(|region| !region.is_empty()),
                "voter": member.voter,
                "this": member.this,
            })
        })
        .collect();
    let groups: Vec<Value> = status
        .groups
        .iter()
        .map(|group| {
            json!({
                "group": group.group,
                "kind": if group.group == 0 { "meta" } else { "ledger" },
                "leader": group.leader,
                "term": group.term,
                "last_index": group.last_index,
                "committed_index": group.committed_index,
                "applied_index": group.applied_index,
                "lag": group.lag,
            })
        })
        .collect();
    let certificates: Vec<Value> = certificates
        .iter()
        .map(|certificate| {
            json!({
                "listener": certificate.place,
                "names": certificate.names,
                "not_before": Timestamp::from_unix_seconds(certificate.not_before),
                "not_after": Timestamp::from_unix_seconds(certificate.not_after),
            })
        })
        .collect();
    json!({
        "node": status.node,
        "version": env!("CARGO_PKG_VERSION"),
        "ready": not_ready.is_none(),
        "reason": not_ready,
        "nodes": nodes,
        "groups": groups,
        "certificates": certificates,
    })
}

//! `/v1/cluster`: the cluster as this node sees it, and who comes, goes and leads.

use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use serde_json::{Value, json};
use store::{
    ClusterError, ClusterStatus, Readiness,
    model::{AuditNote, MAX_LEDGER_GROUPS, Role, Timestamp},
};

use super::{
    Admin, Shared,
    access::{Visitor, Writer},
    answer,
    forms::is_slug,
    input,
    params::Params,
    problem::{Code, Problem, Result},
};
use crate::tls::Certificate;

const ADDR_FORM: &str = "host:port, like 10.0.0.7:8082";
/// Longest host and port.
const MAX_ADDR_BYTES: usize = 260;

/// `GET /v1/cluster`
pub(crate) async fn get(visitor: Visitor, State(admin): Shared, params: Params) -> Result<Response> {
    visitor.require_staff()?;
    params.finish()?;
    Ok(shown(&admin).await)
}

/// `POST /v1/cluster/nodes`: takes in the empty node that listens for peers at `peer_addr`.
pub(crate) async fn join(visitor: Visitor, State(admin): Shared, params: Params, body: Bytes) -> Result<Response> {
    let writer = operator(visitor, params)?;
    let addr = input::read(input::required(&body)?, |object| {
        object.required("peer_addr").and_then(|field| field.text(ADDR_FORM, is_addr))
    })?;
    admin.store.take_in(&addr).await.map_err(problem)?;
    writer.done(&admin, "join", &addr).await?;
    Ok(shown(&admin).await)
}

/// `DELETE /v1/cluster/nodes/{id}`: takes a node out, by its name or id.
pub(crate) async fn remove(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response> {
    let writer = operator(visitor, params)?;
    admin.store.remove_node(&id).await.map_err(problem)?;
    writer.done(&admin, "remove", &id).await?;
    Ok(answer::gone())
}

/// `POST /v1/cluster/nodes/{id}/drain`: leadership goes elsewhere and `/readyz` says 503; or, with `draining: false`, no more.
pub(crate) async fn drain(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    params: Params,
    body: Bytes,
) -> Result<Response> {
    let writer = operator(visitor, params)?;
    let drains = input::read(input::parse(&body)?, |object| match object.optional("draining") {
        Some(field) => field.boolean(),
        None => Some(true),
    })?;
    admin.store.drain_node(&id, drains).await.map_err(problem)?;
    writer.done(&admin, if drains { "drain" } else { "end-drain" }, &id).await?;
    Ok(shown(&admin).await)
}

/// `POST /v1/cluster/transfer-leader`: of a group, or of all, to a node, or to whoever is fit.
pub(crate) async fn transfer(visitor: Visitor, State(admin): Shared, params: Params, body: Bytes) -> Result<Response> {
    let writer = operator(visitor, params)?;
    let (group, to) = input::read(input::parse(&body)?, |object| {
        let group = object.optional("group").map_or(Some(None), |field| field.whole(0..=u32::MAX.into()).map(Some));
        let to = object.optional("to").map_or(Some(None), |field| field.text("a node's name or id", is_slug).map(Some));
        Some((group?, to?))
    })?;
    admin.store.transfer_leader(group, to.as_deref()).await.map_err(problem)?;
    writer.done(&admin, "transfer", to.as_deref().unwrap_or("")).await?;
    Ok(shown(&admin).await)
}

/// `POST /v1/cluster/split`: adds ledger groups until there are so many, and begins to spread the slots over them.
pub(crate) async fn split(visitor: Visitor, State(admin): Shared, params: Params, body: Bytes) -> Result<Response> {
    let writer = operator(visitor, params)?;
    let groups = input::read(input::required(&body)?, |object| {
        object.required("ledger_groups").and_then(|field| field.whole(2..=u64::from(MAX_LEDGER_GROUPS)))
    })?;
    admin.store.split(groups).await.map_err(problem)?;
    writer.done(&admin, "split", &groups.to_string()).await?;
    Ok(shown(&admin).await)
}

/// Who may change the cluster.
fn operator(visitor: Visitor, params: Params) -> Result<Writer> {
    let writer = visitor.require(Role::Admin)?;
    writer.caller().require_everywhere()?;
    params.finish()?;
    Ok(writer)
}

fn problem(error: ClusterError) -> Problem {
    match error {
        ClusterError::Unknown(name) => Problem::not_found("node", &name),
        ClusterError::Refused(why) => Problem::new(Code::NotPossible, why),
        ClusterError::Unavailable(unavailable) => unavailable.into(),
    }
}

/// Whether a text is an address that a node can be asked at.
fn is_addr(text: &str) -> bool {
    text.len() <= MAX_ADDR_BYTES
        && text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c))
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
}

impl Writer {
    /// Notes in the audit what was done to the cluster. It is done: a note that finds no quorum is a line in the log.
    async fn done(&self, admin: &Admin, action: &str, id: &str) -> Result<()> {
        let caller = self.caller();
        let note = AuditNote {
            at: Timestamp::now(),
            actor: caller.actor.clone(),
            role: Some(caller.role),
            source: self.source().to_owned(),
            request_id: self.request_id().to_owned(),
            action: action.to_owned(),
            id: format!("/v1/cluster/{id}"),
            result: "done".to_owned(),
            count: None,
        };
        if let Err(error) = admin.store.note(vec![note]).await {
            tracing::warn!(%error, actor = %caller.actor, action, node = id, "a change of the cluster is not in the audit");
        }
        Ok(())
    }
}

async fn shown(admin: &Admin) -> Response {
    let reason = match admin.store.readiness() {
        Readiness::Ready => None,
        Readiness::NotReady(reason) => Some(reason),
    };
    answer::plain(&view(&admin.store.cluster().await, reason.as_deref(), &admin.certificates.all()))
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
                "role": if member.voter { "voter" } else { "learner" },
                "voter": member.voter,
                "this": member.this,
                "live": member.live,
                "silent_ms": member.silent.map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
                "draining": member.draining,
                "version": member.version,
                "wire": member.wire.map(|(oldest, newest)| json!({ "oldest": oldest, "newest": newest })),
                "applied": member.applied.iter().map(|(group, index)| (group.to_string(), *index)).collect::<std::collections::BTreeMap<_, _>>(),
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
                "slots": group.slots,
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
        "split": status.split.as_ref().map(|split| json!({
            "ledger_groups": split.ledger_groups,
            "slots": split.slots,
            "slots_to_move": split.slots_to_move,
            "moving": split.moving.map(|moving| json!({
                "first_slot": moving.first, "slots": moving.slots, "from": moving.from.0, "to": moving.to.0,
            })),
            "waits_for": split.waits_for,
        })),
        "certificates": certificates,
    })
}

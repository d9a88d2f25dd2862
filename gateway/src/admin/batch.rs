//! `POST /v1/batch`: many changes as one; all happen or none.

use axum::{body::Bytes, extract::State, response::Response};
use http::Method;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use store::model::{Role, Route, Tier, Upstream};

use super::{
    Shared,
    access::Visitor,
    accounts, answer,
    change::{self, Outcome, Refusal},
    draft::{Draft, Effect},
    etag::Condition,
    input::{self, Field},
    keys, limits, named, once,
    params::Params,
    problem::{Code, FieldError, Problem, Result},
    tokens,
};

/// Operations of a batch.
pub(crate) const MAX_OPERATIONS: usize = 1_000;

/// One of a batch's operations: a request without its own connection.
#[derive(Debug)]
struct Operation {
    method: Method,
    /// Segments after `/v1/`, decoded.
    path: Vec<String>,
    condition: Condition,
    body: Value,
}

/// `POST /v1/batch`
pub(crate) async fn create(visitor: Visitor, State(admin): Shared, params: Params, body: Bytes) -> Result<Response> {
    let writer = visitor.require(Role::Operator)?;
    params.finish()?;
    let value = input::required(&body)?;
    // Reading and laying a thousand operations over what is stored takes milliseconds of a thread.
    let operations = tokio::task::block_in_place(|| {
        let (operations, wrong) = read(value);
        if wrong.is_empty() {
            return Ok(operations.into_iter().flatten().collect::<Vec<_>>());
        }
        let mut draft = Draft::new(&admin.store, writer.caller());
        Err(refused(&mut draft, &operations, wrong))
    })?;
    let plan = |draft: &mut Draft<'_>| tokio::task::block_in_place(|| lay(draft, &operations));
    let outcome = change::run(&admin, &writer, &body, plan).await.map_err(located)?;
    Ok(answered(outcome))
}

/// Each operation, or none where it cannot be read; and everything that is wrong.
fn read(value: Value) -> (Vec<Option<Operation>>, Vec<FieldError>) {
    let (operations, wrong) = input::read_some(value, |object| {
        let each = |field: Field<'_>| Some(operation(field));
        let operations = object.required("operations").and_then(|field| field.list(MAX_OPERATIONS, each));
        if operations.as_ref().is_some_and(Vec::is_empty) {
            object.tell("operations", "is empty");
        }
        operations
    });
    (operations.unwrap_or_default(), wrong)
}

/// Beside operations that cannot be read, what is wrong with the bodies of the others. What these name may be made by those,
/// so nothing else is told of them.
fn refused(draft: &mut Draft<'_>, operations: &[Option<Operation>], mut wrong: Vec<FieldError>) -> Problem {
    for (n, operation) in operations.iter().enumerate() {
        let Some(operation) = operation else { continue };
        draft.begin(n);
        if let Err(problem) = perform(draft, operation)
            && problem.code() == Code::InvalidBody
        {
            wrong.extend(problem.within(&format!("/operations/{n}")));
        }
    }
    Problem::invalid(Code::InvalidBody, wrong)
}

fn operation(field: Field<'_>) -> Option<Operation> {
    let mut object = field.object()?;
    let method = object.required("method").and_then(|field| {
        field
            .choice(&[("POST", 0), ("PUT", 1), ("PATCH", 2), ("DELETE", 3)])
            .map(|method: usize| [Method::POST, Method::PUT, Method::PATCH, Method::DELETE][method].clone())
    });
    let path = object.required("path").and_then(|field| field.parsed("a path like /v1/accounts/acme", segments));
    let if_match = object.optional("if_match").map_or(Some(Condition::None), |field| {
        field.parsed("an ETag as it was given, like \"17\", or *", Condition::of_if_match)
    });
    let if_none_match = object.optional("if_none_match").map_or(Some(Condition::None), |field| {
        field.parsed("*", |text| if text == "*" { Ok(Condition::Absent) } else { Err(()) })
    });
    let body = object.optional("body").map_or(Value::Null, Field::into_value);
    let condition = match (if_match?, if_none_match?) {
        (condition, Condition::None) => condition,
        (Condition::None, condition) => condition,
        _ => {
            object.tell("if_none_match", "excludes if_match: give one of them");
            return None;
        }
    };
    Some(Operation { method: method?, path: path?, condition, body })
}

fn segments(path: &str) -> std::result::Result<Vec<String>, ()> {
    let rest = path.strip_prefix("/v1/").ok_or(())?;
    rest.split('/')
        .map(|segment| {
            let text = percent_decode_str(segment).decode_utf8().map_err(|_| ())?;
            if text.is_empty() { Err(()) } else { Ok(text.into_owned()) }
        })
        .collect()
}

/// Lays all operations over what is stored; tells what is wrong with any of them.
fn lay(draft: &mut Draft<'_>, operations: &[Operation]) -> std::result::Result<Vec<Effect>, Refusal> {
    let mut effects = Vec::with_capacity(operations.len());
    let mut problems = Vec::new();
    for (n, operation) in operations.iter().enumerate() {
        draft.begin(n);
        match perform(draft, operation) {
            Ok(effect) => effects.push(effect),
            Err(problem) => problems.push((n, problem)),
        }
    }
    if problems.is_empty() { Ok(effects) } else { Err(together(problems).into()) }
}

fn perform(draft: &mut Draft<'_>, operation: &Operation) -> Result<Effect> {
    let Operation { method, path, condition, body } = operation;
    let (condition, body) = (*condition, body.clone());
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let is = |wanted: Method| *method == wanted;
    match path.as_slice() {
        ["accounts"] if is(Method::POST) => accounts::draft_create(draft, body),
        ["accounts", id] if is(Method::PATCH) => accounts::draft_patch(draft, id, condition, body),
        ["accounts", id] if is(Method::DELETE) => accounts::draft_delete(draft, id, condition),
        ["accounts", id, "keys"] if is(Method::POST) => keys::draft_create(draft, id, body),
        ["accounts", id, "limits", name, "reset"] if is(Method::POST) => {
            limits::draft_reset(draft, id, name, condition, body)
        }
        ["keys", id] if is(Method::PATCH) => keys::draft_patch(draft, id, condition, body),
        ["keys", id] if is(Method::DELETE) => keys::draft_revoke(draft, id, condition),
        ["keys", id, "rotate"] if is(Method::POST) => keys::draft_rotate(draft, id, condition, body),
        ["tiers", name] if is(Method::PUT) => named::draft_put::<Tier>(draft, name, condition, body),
        ["tiers", name] if is(Method::DELETE) => named::draft_delete::<Tier>(draft, name, condition),
        ["routes", name] if is(Method::PUT) => named::draft_put::<Route>(draft, name, condition, body),
        ["routes", name] if is(Method::DELETE) => named::draft_delete::<Route>(draft, name, condition),
        ["upstreams", name] if is(Method::PUT) => named::draft_put::<Upstream>(draft, name, condition, body),
        ["upstreams", name] if is(Method::DELETE) => named::draft_delete::<Upstream>(draft, name, condition),
        ["tokens"] if is(Method::POST) => tokens::draft_create(draft, body),
        ["tokens", id, "rotate"] if is(Method::POST) => tokens::draft_rotate(draft, id, condition, body),
        ["tokens", id] if is(Method::DELETE) => tokens::draft_delete(draft, id, condition),
        _ => Err(Problem::new(Code::NotFound, format!("a batch has no {method} /v1/{}", path.join("/")))),
    }
}

/// Every problem of every operation, as one.
fn together(problems: Vec<(usize, Problem)>) -> Problem {
    // What the caller has to know first: what it may not do, then what is wrong with the input, then what is in the way.
    let ranked = |problem: &Problem| match problem.code() {
        Code::RoleTooLow | Code::TokenLimited => 0,
        Code::InvalidBody | Code::MalformedBody => 1,
        Code::Internal | Code::StorageDamaged | Code::TemporaryReducedCapacity => 0,
        _ => 2,
    };
    let first = problems.iter().map(|(_, problem)| problem).min_by_key(|problem| ranked(problem)).cloned();
    let errors: Vec<FieldError> =
        problems.into_iter().flat_map(|(n, problem)| problem.within(&format!("/operations/{n}"))).collect();
    match first {
        Some(first) => first.with_errors(errors),
        None => Problem::invalid(Code::InvalidBody, errors),
    }
}

fn located(refusal: Refusal) -> Problem {
    match refusal.operation {
        Some(operation) => together(vec![(operation, refusal.problem)]),
        None => refusal.problem,
    }
}

fn answered(outcome: Outcome) -> Response {
    let data: Vec<Value> = outcome
        .effects
        .into_iter()
        .map(|effect| {
            json!({
                "status": effect.status.as_u16(),
                "path": effect.kind.path(&effect.id),
                "id": effect.id,
                "body": effect.view,
            })
        })
        .collect();
    let mut response = answer::plain(&json!({ "revision": outcome.revision, "data": data }));
    if outcome.replayed {
        response.headers_mut().insert(once::REPLAYED, once::REPLAYED_VALUE);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_read_and_every_wrong_one_is_told() {
        let read = |value| match read(value) {
            (operations, wrong) if wrong.is_empty() => Ok(operations.into_iter().flatten().collect::<Vec<_>>()),
            (_, wrong) => Err(wrong.into_iter().map(|error| error.pointer).collect::<Vec<_>>()),
        };
        let good = json!({ "operations": [
            { "method": "POST", "path": "/v1/accounts", "body": { "id": "a" } },
            { "method": "DELETE", "path": "/v1/keys/key%5f1", "if_match": "\"3\"" },
        ] });
        let operations = read(good).expect("reads");
        assert_eq!((operations[1].path[1].as_str(), operations[1].condition), ("key_1", Condition::Revision(3)));
        let bad = json!({ "operations": [
            { "method": "GET", "path": "/v1/accounts" },
            { "method": "PUT", "path": "/v2/tiers/x", "if_match": "three", "x": 1 },
        ], "more": 1 });
        let wrong =
            ["/operations/0/method", "/operations/1/path", "/operations/1/if_match", "/operations/1/x", "/more"];
        assert_eq!(read(bad).expect_err("refused"), wrong);
        assert_eq!(read(json!({})).expect_err("refused"), ["/operations"]);
        assert_eq!(read(json!({ "operations": [] })).expect_err("refused"), ["/operations"]);
        let many: Vec<Value> = (0..=MAX_OPERATIONS).map(|_| json!({})).collect();
        assert_eq!(read(json!({ "operations": many })).expect_err("refused"), ["/operations"]);
    }

    #[test]
    fn an_operation_that_cannot_be_read_leaves_the_others_readable() {
        let (operations, wrong) = super::read(json!({ "operations": [
            { "method": "GET", "path": "/v1/accounts" },
            { "method": "PUT", "path": "/v1/tiers/gold", "body": { "concurrency": 0 } },
        ] }));
        assert_eq!(wrong.len(), 1);
        assert!(operations[0].is_none() && operations[1].is_some());
    }

    #[test]
    fn problems_of_operations_are_told_together() {
        let invalid = Problem::invalid(
            Code::InvalidBody,
            vec![FieldError { pointer: "/tier".into(), detail: "is required".into() }],
        );
        let told = together(vec![(4, Problem::not_found("key", "k")), (7, invalid)]);
        assert_eq!(told.code(), Code::InvalidBody);
        let pointers: Vec<&str> = told.errors().iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/operations/4", "/operations/7/body/tier"]);
        assert_eq!(together(vec![(0, Problem::not_found("key", "k"))]).code(), Code::NotFound);
    }
}

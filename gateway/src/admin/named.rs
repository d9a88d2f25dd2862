//! What tiers, routes and upstreams have in common: a name that the caller chooses, a whole that is put, and others that use
//! it by that name. Each kind says for itself what is a good one, who may be looked for, and what is in the way of its end.

use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use store::{
    ReadError, Store,
    model::{Expect, MetaOp, Name, Role, Route, Tier, Upstream},
};

use super::{
    Shared,
    access::Visitor,
    answer, change,
    draft::{Draft, Effect, Kind, Revised, Slot},
    etag::Condition,
    input,
    params::Params,
    problem::{Problem, Result},
};

/// Where objects of a kind are kept, and by which operations they are written.
pub(crate) trait Shelved: Revised + Serialize + Clone + Send + Sync + 'static {
    const KIND: Kind;
    fn name(&self) -> &Name;
    fn all(store: &Store) -> Result<Vec<Self>, ReadError>;
    fn find(store: &Store, name: &str) -> Result<Option<Self>, ReadError>;
    /// As it is or will be in a draft.
    fn slot<'d>(draft: &'d mut Draft<'_>, name: &str) -> Result<&'d Slot<Self>>;
    /// What a draft makes of it.
    fn set(draft: &mut Draft<'_>, name: &str, value: Option<Self>);
    fn put_op(self, expect: Expect) -> MetaOp;
    fn delete_op(name: Name, expect: Expect) -> MetaOp;
}

/// A kind of them.
pub(crate) trait Named: Shelved {
    /// A new one from a body, held against what else there is or will be; the name is the path's.
    fn checked(draft: &mut Draft<'_>, name: &str, body: Value) -> Result<Self>;

    /// Which of them a list's own parameters mean.
    fn wanted(_params: &mut Params) -> impl Fn(&Self) -> bool + use<Self> {
        |_: &Self| true
    }

    /// Refuses its end while something that only a draft can see uses it.
    fn may_go(_draft: &Draft<'_>, _name: &str) -> Result<()> {
        Ok(())
    }
}

macro_rules! shelved {
    ($type:ident, $all:ident, $one:ident, $set:ident, $put:ident, $delete:ident) => {
        impl Shelved for $type {
            const KIND: Kind = Kind::$type;

            fn name(&self) -> &Name {
                &self.name
            }

            fn all(store: &Store) -> Result<Vec<Self>, ReadError> {
                store.$all()
            }

            fn find(store: &Store, name: &str) -> Result<Option<Self>, ReadError> {
                store.$one(name)
            }

            fn slot<'d>(draft: &'d mut Draft<'_>, name: &str) -> Result<&'d Slot<Self>> {
                draft.$one(name)
            }

            fn set(draft: &mut Draft<'_>, name: &str, value: Option<Self>) {
                draft.$set(name, value);
            }

            fn put_op(self, expect: Expect) -> MetaOp {
                MetaOp::$put { $one: self, expect }
            }

            fn delete_op(name: Name, expect: Expect) -> MetaOp {
                MetaOp::$delete { name, expect }
            }
        }
    };
}

shelved!(Tier, tiers, tier, set_tier, PutTier, DeleteTier);
shelved!(Route, routes, route, set_route, PutRoute, DeleteRoute);
shelved!(Upstream, upstreams, upstream, set_upstream, PutUpstream, DeleteUpstream);

/// `GET /v1/tiers` and the like.
pub(crate) async fn list<T: Named>(visitor: Visitor, State(admin): Shared, mut params: Params) -> Result<Response> {
    visitor.require_staff()?;
    let page = params.page();
    let name_prefix = params.name("name_prefix").unwrap_or_default();
    let is_wanted = T::wanted(&mut params);
    params.finish()?;
    let all = T::all(&admin.store)?.into_iter();
    let all = all.filter(|object| object.name().starts_with(name_prefix.as_str()) && is_wanted(object)).collect();
    let (some, next) = page.of(all, |object: &T| object.name().clone());
    Ok(answer::list(some, next))
}

/// `GET /v1/tiers/{name}` and the like.
pub(crate) async fn get<T: Named>(
    visitor: Visitor,
    State(admin): Shared,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response> {
    visitor.require_staff()?;
    params.finish()?;
    let object = T::find(&admin.store, &name)?.ok_or_else(|| Problem::not_found(T::KIND.noun(), &name))?;
    Ok(answer::object(StatusCode::OK, object.revision(), &object))
}

/// `PUT /v1/tiers/{name}` and the like: makes or replaces it; in force everywhere when this answers.
pub(crate) async fn put<T: Named>(
    visitor: Visitor,
    State(admin): Shared,
    Path(name): Path<String>,
    condition: Condition,
    params: Params,
    body: Bytes,
) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?;
    params.finish()?;
    // An empty body is not as good as `{}` here: one that got lost on the way would empty the object.
    let value = input::required(&body)?;
    change::one(&admin, &writer, &body, |draft| draft_put::<T>(draft, &name, condition, value.clone())).await
}

/// An object, new or in the place of the one of its name.
pub(crate) fn draft_put<T: Named>(
    draft: &mut Draft<'_>,
    name: &str,
    condition: Condition,
    body: Value,
) -> Result<Effect> {
    draft.require_everywhere(Role::Admin)?;
    let object = T::checked(draft, name, body)?;
    let slot = T::slot(draft, name)?;
    let (expect, is_new) = (slot.put(condition)?, slot.value.is_none());
    let view = json!(object);
    draft.op(condition, object.clone().put_op(expect));
    T::set(draft, name, Some(object));
    Ok(if is_new { Effect::created(T::KIND, name, view) } else { Effect::changed(T::KIND, name, view) })
}

/// `DELETE /v1/tiers/{name}` and the like: refused while something uses it.
pub(crate) async fn delete<T: Named>(
    visitor: Visitor,
    State(admin): Shared,
    Path(name): Path<String>,
    condition: Condition,
    params: Params,
) -> Result<Response> {
    let writer = visitor.require(Role::Admin)?;
    params.finish()?;
    change::one(&admin, &writer, &[], |draft| draft_delete::<T>(draft, &name, condition)).await
}

/// An object that goes.
pub(crate) fn draft_delete<T: Named>(draft: &mut Draft<'_>, name: &str, condition: Condition) -> Result<Effect> {
    draft.require_everywhere(Role::Admin)?;
    let expect = T::slot(draft, name)?.remove(T::KIND, name, condition)?;
    T::may_go(draft, name)?;
    draft.op(condition, T::delete_op(name.into(), expect));
    T::set(draft, name, None);
    Ok(Effect::gone(T::KIND, name))
}

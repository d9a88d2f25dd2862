//! What decided a request, as its row keeps it: the policies that refused with their numbers, shadows that would have, and
//! beside a refusal those that let it through. A request that all let through keeps nothing, and nothing is made for it.

use store::{
    lease::{Policy, Standing},
    model::{Counted, Decided, Name, Numbers, Part, Source, Unit},
};

use super::{Ledger, entry::Entry};

impl<L: Ledger> Entry<L> {
    /// With the numbers of that instant.
    pub(crate) fn decided_by(&self) -> Name {
        if self.is_undecided() {
            return Name::default();
        }
        let standing = |name: &Name| self.stood.iter().find(|standing| standing.name == *name);
        let told = |name, part, standing| self.decided(name, part, self.numbers(name, part, standing));
        let refused = self.violated.iter().map(|name| told(name, Part::Refused, standing(name)));
        let shadows = self.shadows.iter().map(|name| told(name, Part::WouldRefuse, None));
        // Only a refusal is worth telling who did not refuse.
        let beside =
            self.stood.iter().filter(|standing| !self.violated.is_empty() && !self.violated.contains(&standing.name));
        let passed = beside.map(|standing| told(&standing.name, Part::Passed, Some(standing)));
        Decided::text(refused.chain(shadows).chain(passed))
    }

    /// Without: of a row that stands for many.
    pub(crate) fn decided_by_names(&self) -> Name {
        if self.is_undecided() {
            return Name::default();
        }
        let refused = self.violated.iter().map(|name| self.decided(name, Part::Refused, None));
        Decided::text(refused.chain(self.shadows.iter().map(|name| self.decided(name, Part::WouldRefuse, None))))
    }

    fn is_undecided(&self) -> bool {
        self.violated.is_empty() && self.shadows.is_empty() || self.known.is_none()
    }

    fn decided(&self, policy: &Name, part: Part, numbers: Option<Numbers>) -> Decided {
        // The concurrency has no policy of its own, but a name.
        let setting = self.key().account.policies.setting(policy, self.ts);
        Decided { policy: policy.clone(), setting, part, numbers }
    }

    fn numbers(&self, name: &Name, part: Part, standing: Option<&Standing>) -> Option<Numbers> {
        let policies = &self.key().account.policies;
        // A shadow had none left; what it would have taken the row itself says, so that equal ones stay equal texts.
        let is_shadow = part == Part::WouldRefuse;
        let remaining = match standing {
            Some(standing) => Some(standing.remaining).filter(|_| standing.is_known),
            None => is_shadow.then_some(0),
        };
        let needed = |units: u64| (!is_shadow).then_some(units);
        if let Some(limit) = policies.all_limits_at(self.ts).find(|policy| policy.limit.name == *name) {
            let (source, limit) = (limit.source, limit.limit.burst);
            let needed = needed(1);
            return Some(Numbers { counted: Counted::Rate, source, limit, remaining, needed, resets_at: None });
        }
        if let Some(quota) = policies.quotas_at(self.ts).find(|quota| quota.name == *name) {
            let units = match quota.unit {
                Unit::Requests => 1,
                Unit::ContentBytes => self.demanded_bytes,
                Unit::Cost => self.reserved_cost(self.demanded_bytes),
            };
            return Some(Numbers {
                counted: Counted::Quota(quota.unit),
                source: quota.source,
                limit: quota.limit,
                remaining,
                needed: needed(units),
                resets_at: Some(quota.bounds(self.ts).end),
            });
        }
        let standing = standing.filter(|standing| standing.policy == Policy::Concurrency)?;
        Some(Numbers {
            counted: Counted::Concurrency,
            source: Source::Tier,
            limit: standing.quota,
            remaining,
            needed: needed(1),
            resets_at: None,
        })
    }
}

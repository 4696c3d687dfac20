//! Tokens, pools and joining (F1–F9).

use std::collections::BTreeSet;

use windlass_protocol::message::RefuseCode;
use windlass_protocol::{AgentId, CauseKind, TokenId, WallMs, limits};

use crate::agent::new_agent;
use crate::effect::{Effect, Reply};
use crate::error::Rejected;
use crate::input::ReplyTo;
use crate::lease::Remains;
use crate::row::{
    Actor, AgentRow, JoinRefused, Joining, NewToken, OnDeadline, PoolRow, TagPolicy, TokenGrant, TokenRow,
};
use crate::state::{Agent, Core};

/// The tags that an agent has by its pool's policy and its own claim; one that it may not claim is named (F6).
pub(crate) fn effective_tags(
    policy: &TagPolicy,
    claimed: &[(String, String)],
) -> Result<Vec<(String, String)>, JoinRefused> {
    let refuse = |(name, value): &(String, String)| {
        let detail = format!("the pool does not allow the tag `{name}={value}`: leave it out, or change the pool");
        Err(JoinRefused { code: RefuseCode::TagNotAllowed, detail })
    };
    match policy {
        TagPolicy::Fixed(tags) => claimed.iter().find(|tag| !tags.contains(tag)).map_or(Ok(tags.clone()), refuse),
        TagPolicy::Allowed(tags) => {
            let allows = |(name, value): &(String, String)| {
                tags.iter().any(|(allowed, any)| allowed == name && (any == "*" || any == value))
            };
            claimed.iter().find(|tag| !allows(tag)).map_or(Ok(claimed.to_vec()), refuse)
        }
        TagPolicy::Free(tags) => {
            let mut all = tags.clone();
            all.extend(claimed.iter().filter(|tag| !tags.contains(tag)).cloned());
            Ok(all)
        }
    }
}

fn limit(what: &'static str, limit: usize) -> Rejected {
    Rejected::Limit { what, limit: limit as u64 }
}

/// Whether a pool's description stays within bounds.
fn check_pool(pool: &PoolRow) -> Result<(), Rejected> {
    let tags = pool.tags.tags();
    if pool.queues.len() > limits::QUEUES_PER_POOL_MAX {
        return Err(limit("queues of a pool", limits::QUEUES_PER_POOL_MAX));
    }
    if tags.len() > limits::TAGS_MAX {
        return Err(limit("tags of a pool", limits::TAGS_MAX));
    }
    if [&pool.name, &pool.zone].into_iter().chain(&pool.queues).any(|name| name.len() > limits::NAME_MAX_BYTES) {
        return Err(limit("bytes of a name", limits::NAME_MAX_BYTES));
    }
    if pool.lease_ms > limits::LEASE_MAX_MS || pool.lease_ms < limits::LEASE_MIN_MS {
        return Err(Rejected::Limit {
            what: "milliseconds of a lease (and at least 1,000)",
            limit: limits::LEASE_MAX_MS,
        });
    }
    if pool.beat_ms == 0 || pool.beat_ms > pool.lease_ms / 4 {
        return Err(Rejected::Limit { what: "milliseconds between beats of this lease", limit: pool.lease_ms / 4 });
    }
    Ok(())
}

/// The first field in which two descriptions of a pool differ.
fn contradiction(held: &PoolRow, asked: &PoolRow) -> Option<&'static str> {
    [
        ("zone", held.zone != asked.zone),
        ("queues", held.queues != asked.queues),
        ("trust", held.trust != asked.trust),
        ("tags", held.tags != asked.tags),
        ("lease time", held.lease_ms != asked.lease_ms),
        ("beat time", held.beat_ms != asked.beat_ms),
        ("on_unreachable", held.on_unreachable != asked.on_unreachable),
    ]
    .into_iter()
    .find_map(|(field, differs)| differs.then_some(field))
}

impl Core {
    /// Makes a token, and for a join token of a new pool the pool.
    pub(crate) fn create_token(&mut self, to: ReplyTo, actor: &Actor, new: NewToken) -> Result<(), Rejected> {
        let wall = self.now.wall;
        if self.tokens.contains_key(&new.id) {
            return Err(Rejected::Graph(format!("token {} exists already", new.id)));
        }
        let live = self.tokens.values().filter(|token| !is_past(token, wall)).count();
        if live >= limits::TOKENS_MAX {
            return Err(limit("tokens that are not past", limits::TOKENS_MAX));
        }
        if let TokenGrant::Join { pool, terms, .. } = &new.grant {
            if terms.allowed_cidrs.len() > limits::CIDRS_PER_TOKEN_MAX {
                return Err(limit("networks of a token", limits::CIDRS_PER_TOKEN_MAX));
            }
            match (self.pools.get(pool), &new.pool) {
                (Some(held), Some(asked)) => {
                    if let Some(field) = contradiction(held, asked) {
                        return Err(Rejected::PoolConflict { pool: pool.clone(), field });
                    }
                }
                (None, Some(asked)) if asked.name == *pool => {
                    if self.pools.len() >= limits::POOLS_MAX {
                        return Err(limit("pools", limits::POOLS_MAX));
                    }
                    check_pool(asked)?;
                }
                (None, _) => return Err(Rejected::NoSuchPool(pool.clone())),
                (Some(_), None) => {}
            }
            if let Some(asked) = new.pool.filter(|asked| !self.pools.contains_key(&asked.name)) {
                self.book.pools.insert(asked.name.clone());
                self.pools.insert(asked.name.clone(), PoolRow { created_at: wall, ..asked });
            }
        }
        let row = TokenRow {
            id: new.id,
            secret_hash: new.secret_hash,
            grant: new.grant,
            note: new.note,
            created_by: actor.clone(),
            created_at: wall,
            expires_at: new.expires_at,
            revoked_at: None,
            last_used_at: None,
        };
        self.tokens.insert(new.id, row);
        self.book.tokens.insert(new.id);
        self.audit(actor, "token.create", &new.id.to_string(), "");
        self.book.out.push(Effect::Reply { to, reply: Reply::Token { token: new.id } });
        Ok(())
    }

    /// Takes a token back; the agents that it admitted stay unless they are named too (F5).
    pub(crate) fn revoke_token(&mut self, actor: &Actor, id: TokenId, and_agents: bool) -> Result<(), Rejected> {
        let wall = self.now.wall;
        let token = self.tokens.get_mut(&id).ok_or(Rejected::NoSuchToken(id))?;
        token.revoked_at = token.revoked_at.or(Some(wall));
        self.book.tokens.insert(id);
        let mut revoked = 0_usize;
        if and_agents {
            let theirs = self.agents.iter().filter(|(_, agent)| agent.row.token == id);
            for agent in theirs.map(|(agent, _)| *agent).collect::<Vec<_>>() {
                self.revoke_agent(agent);
                revoked += 1;
            }
        }
        self.audit(actor, "token.revoke", &id.to_string(), &format!("with {revoked} agents"));
        Ok(())
    }

    /// Forgets tokens that could do nothing more before `before`. One that admitted an agent which is known stays: its terms
    /// say how that agent may be called (F3), and with it the agent can be revoked.
    pub(crate) fn forget_tokens(&mut self, before: WallMs) {
        let admitted: BTreeSet<TokenId> = self.agents.values().map(|agent| agent.row.token).collect();
        let wall = self.now.wall;
        let old = self.tokens.iter().filter(|(id, token)| {
            past_since(token, wall).is_some_and(|since| since < before) && !admitted.contains(id)
        });
        for id in old.map(|(id, _)| *id).take(limits::TOKENS_FORGOTTEN_MAX).collect::<Vec<_>>() {
            self.tokens.remove(&id);
            self.book.tokens.insert(id);
        }
    }

    /// Admits an agent: the use and the agent are one commit (F2). The same key gets the same agent, without another
    /// use, even if the token is past by now.
    pub(crate) fn join(&mut self, to: ReplyTo, joining: Joining) -> Result<(), Rejected> {
        let refuse = |code, detail: &str| Err(Rejected::Join(JoinRefused { code, detail: detail.to_owned() }));
        let Some(token) = self.tokens.get(&joining.token).filter(|token| token.secret_hash == joining.secret_hash)
        else {
            return refuse(RefuseCode::TokenUnknown, "there is no such token: ask for a new one");
        };
        let TokenGrant::Join { pool, max_uses, used, terms } = token.grant.clone() else {
            return refuse(RefuseCode::TokenUnknown, "this is no join token: make one with `token create --pool`");
        };
        if let Some(known) = self.keys.get(&joining.key).copied() {
            return self.join_again(to, known, &pool);
        }
        let wall = self.now.wall;
        if token.revoked_at.is_some() {
            return refuse(RefuseCode::TokenRevoked, "the token was revoked: ask for a new one");
        }
        if token.expires_at.is_some_and(|end| end <= wall) {
            return refuse(RefuseCode::TokenExpired, "the token's time is over: ask for a new one");
        }
        if max_uses.is_some_and(|max| used >= max) {
            return refuse(RefuseCode::TokenUsedUp, "all uses of the token are taken: ask for a new one");
        }
        terms.admit(wall, joining.address, &joining.name).map_err(Rejected::Join)?;
        let Some(home) = self.pools.get(&pool) else { return Err(Rejected::NoSuchPool(pool)) };
        if home.paused {
            return refuse(RefuseCode::PoolPaused, "the pool takes nobody now: try again later");
        }
        if self.agents.len() >= limits::AGENTS_MAX {
            let detail = "there are as many agents as one coordinator serves: revoke some that are gone for good";
            return refuse(RefuseCode::PoolFull, detail);
        }
        if joining.name.len() > limits::NAME_MAX_BYTES || joining.machine_id.len() > limits::NAME_MAX_BYTES {
            return Err(limit("bytes of a name", limits::NAME_MAX_BYTES));
        }
        if joining.tags.len() > limits::TAGS_MAX {
            return Err(limit("tags of an agent", limits::TAGS_MAX));
        }
        let tags = effective_tags(&home.tags, &joining.tags).map_err(Rejected::Join)?;
        self.check_name_free(&pool, &joining.name, None).map_err(Rejected::Join)?;
        self.replace_older(&pool, &joining);
        self.admit(to, joining, pool, tags);
        Ok(())
    }

    fn admit(&mut self, to: ReplyTo, joining: Joining, pool: String, tags: Vec<(String, String)>) {
        let wall = self.now.wall;
        if let Some(token) = self.tokens.get_mut(&joining.token) {
            token.last_used_at = Some(wall);
            if let TokenGrant::Join { used, .. } = &mut token.grant {
                *used += 1;
            }
        }
        self.book.tokens.insert(joining.token);
        let id = self.ids.agent(wall);
        let actor = Actor { kind: crate::row::ActorKind::Token, name: joining.token.to_string() };
        self.audit(&actor, "agent.join", &id.to_string(), &format!("{} in {pool}", joining.name));
        let row = AgentRow {
            id,
            name: joining.name,
            pool,
            key: joining.key,
            token: joining.token,
            machine_id: joining.machine_id,
            tags,
            joined_at: wall,
            draining: false,
            drain_until: None,
            on_deadline: OnDeadline::default(),
            last_seen_at: None,
            left: false,
            revoked_at: None,
            gone: None,
        };
        self.keys.insert(row.key, id);
        self.queue.hold_tags(&[], &row.tags);
        self.agents.insert(id, new_agent(row, self.now.mono));
        self.book.agents.insert(id);
        self.watch_absence(id);
        self.refresh(id);
        self.welcome_joined(to, id);
    }

    fn join_again(&mut self, to: ReplyTo, id: AgentId, pool: &str) -> Result<(), Rejected> {
        let row = &self.agents[&id].row;
        if row.revoked_at.is_some() {
            let detail = "this agent's key was revoked: join with a new one".to_owned();
            return Err(Rejected::Join(JoinRefused { code: RefuseCode::AgentRevoked, detail }));
        }
        if row.pool != pool {
            let detail = format!("this key belongs to an agent of pool `{}`: join with a new key", row.pool);
            return Err(Rejected::Join(JoinRefused { code: RefuseCode::Malformed, detail }));
        }
        self.welcome_joined(to, id);
        Ok(())
    }

    fn welcome_joined(&mut self, to: ReplyTo, agent: AgentId) {
        let pool = self.agents[&agent].row.pool.clone();
        let Some(home) = self.pools.get(&pool) else { return };
        let (zone, trust) = (home.zone.clone(), home.trust);
        self.book.out.push(Effect::Reply { to, reply: Reply::Joined { agent, pool, zone, trust } });
    }

    /// Whether no other agent of the pool that is connected has this name.
    pub(crate) fn check_name_free(&self, pool: &str, name: &str, but: Option<AgentId>) -> Result<(), JoinRefused> {
        let taken = |(id, agent): (&AgentId, &Agent)| {
            agent.conn.is_some() && Some(*id) != but && agent.row.name == name && agent.row.pool == pool
        };
        if !self.agents.iter().any(taken) {
            return Ok(());
        }
        let detail = format!(
            "an agent of pool `{pool}` that is online is called `{name}`: give this one another --name, or stop that one"
        );
        Err(JoinRefused { code: RefuseCode::NameTaken, detail })
    }

    /// The same machine comes with a new key: the agent that lost its state is gone (F9). Agents of one machine are told
    /// apart by their names, and machines that were copied from one image may share an id: both have to agree.
    fn replace_older(&mut self, pool: &str, joining: &Joining) {
        if joining.machine_id.is_empty() {
            return;
        }
        let older = self.agents.iter().filter(|(_, agent)| {
            agent.row.pool == pool
                && agent.row.machine_id == joining.machine_id
                && agent.row.name == joining.name
                && agent.row.key != joining.key
                && agent.row.revoked_at.is_none()
                && agent.conn.is_none()
        });
        for id in older.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.lose_all(id, CauseKind::AgentLost, "replaced", Remains::Unknown);
            if self.agents[&id].slots.is_empty() {
                let wall = self.now.wall;
                if let Some(agent) = self.agents.get_mut(&id) {
                    agent.row.gone = Some("replaced".to_owned());
                    agent.row.last_seen_at.get_or_insert(agent.heard_wall.unwrap_or(wall));
                }
                self.book.agents.insert(id);
                self.book.departed.insert(id);
            }
        }
    }

    /// An agent's key is worth nothing from now on: it is cut off, and its jobs are lost.
    pub(crate) fn revoke_agent(&mut self, id: AgentId) {
        let wall = self.now.wall;
        let Some(agent) = self.agents.get_mut(&id) else { return };
        if agent.row.revoked_at.is_some() {
            return;
        }
        agent.row.revoked_at = Some(wall);
        self.book.agents.insert(id);
        if let Some(conn) = agent.conn.take() {
            let (code, detail) = (RefuseCode::AgentRevoked, "this agent was revoked".to_owned());
            self.book.out.push(Effect::Disconnect { agent: id, conn, code, detail });
        }
        self.lose_all(id, CauseKind::AgentLost, "the agent was revoked", Remains::Unknown);
        self.refresh(id);
    }
}

/// Whether a token can do nothing any more.
fn is_past(token: &TokenRow, wall: WallMs) -> bool {
    token.revoked_at.is_some() || token.expires_at.is_some_and(|end| end <= wall)
}

/// Since when a token can do nothing any more, but for being shown: it was revoked, has ended, or is used up.
fn past_since(token: &TokenRow, wall: WallMs) -> Option<WallMs> {
    let used_up = match &token.grant {
        TokenGrant::Join { max_uses: Some(max), used, .. } if used >= max => token.last_used_at,
        TokenGrant::Join { .. } | TokenGrant::Api { .. } => None,
    };
    let ended = token.expires_at.filter(|end| *end <= wall);
    token.revoked_at.into_iter().chain(ended).chain(used_up).min()
}

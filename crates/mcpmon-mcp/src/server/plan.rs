//! From what came in to what is done about it: dispatch and behaviour put together, for one
//! message or a batch. What is left for a transport is to wait and to write.

use std::time::Duration;

use super::Server;
use super::behaviour::{Fault, Raw};
use super::dispatch::{Answer, Stage, Via};
use crate::jsonrpc::{
    Id, Incoming, Message, ParseError, Request, RpcError, codes, encode_error, encode_request,
};
use crate::protocol::methods;

/// The one revision in which a batch may be sent.
const BATCHING: &str = "2025-03-26";

/// What is done about what came in.
#[derive(Debug)]
pub(super) struct Plan {
    /// Where the conversation stands afterwards.
    pub(super) stage: Stage,
    /// How long it takes.
    pub(super) delay: Duration,
    /// What the client is asked then, each in a message of its own.
    pub(super) asks: Vec<Vec<u8>>,
    /// What is said after that.
    pub(super) reply: Reply,
    /// The request this answers, if it is one.
    pub(super) id: Option<Id>,
}

/// What is said.
#[derive(Debug)]
pub(super) enum Reply {
    /// Nothing is asked.
    Nothing,
    /// This.
    Send(Answer),
    /// Half of this, and then the end.
    CutShort(Answer),
    /// Exactly this.
    Raw(Raw),
    /// Nothing, although something is asked.
    Hang,
    /// The end.
    Close,
}

impl Plan {
    fn nothing(stage: Stage) -> Self {
        Self { stage, delay: Duration::ZERO, asks: Vec::new(), reply: Reply::Nothing, id: None }
    }

    /// A refusal of the whole, before any request could be made out.
    pub(super) fn refusal(stage: Stage, id: Option<&Id>, error: &RpcError) -> Self {
        let answer = Answer { status: 400, body: encode_error(id, error) };
        Self { reply: Reply::Send(answer), ..Self::nothing(stage) }
    }
}

impl Server {
    /// Decides what is done about what came in.
    pub(super) fn plan(
        &self,
        stage: Stage,
        via: Via<'_>,
        incoming: Result<Incoming<'_>, ParseError>,
    ) -> Plan {
        match incoming {
            Ok(Incoming::Single(message)) => self.plan_one(stage, via, &message),
            Ok(Incoming::Batch(messages)) if stage == Stage::Legacy(BATCHING) => {
                self.plan_batch(stage, via, messages)
            }
            Ok(Incoming::Batch(_)) => {
                let error = RpcError::new(codes::INVALID_REQUEST, "this revision has no batches");
                Plan::refusal(stage, None, &error)
            }
            Err(error) => {
                let id = match &error {
                    ParseError::NotAMessage { id, .. } => id.as_ref(),
                    _ => None,
                };
                Plan::refusal(stage, id, &error.to_rpc_error())
            }
        }
    }

    /// What is done about a message that belongs to no conversation: it is refused, but counted and
    /// treated like any other.
    pub(super) fn plan_refused(
        &self,
        via: Via<'_>,
        incoming: &Result<Incoming<'_>, ParseError>,
        refusal: Answer,
    ) -> Plan {
        let mut plan = Plan { reply: Reply::Send(refusal), ..Plan::nothing(Stage::Fresh) };
        if let Ok(Incoming::Single(Message::Request(request))) = incoming {
            let conduct = self.conduct(request, via);
            plan.delay = conduct.delay;
            if let Some(fault) = conduct.fault {
                plan.reply = faulty(fault, via, request);
            }
        }
        plan
    }

    fn plan_one(&self, stage: Stage, via: Via<'_>, message: &Message<'_>) -> Plan {
        let Message::Request(request) = message else {
            if let Message::Response(response) = message {
                self.note_answer(response);
            }
            return Plan::nothing(self.answer(stage, via, message).stage);
        };
        let conduct = self.conduct(request, via);
        let (stage, reply) = match conduct.fault {
            None => self.reply(stage, via, message, Reply::Send),
            Some(Fault::CutShort) => self.reply(stage, via, message, Reply::CutShort),
            Some(fault) => (stage, faulty(fault, via, request)),
        };
        let id = Some(request.id.clone());
        Plan { stage, delay: conduct.delay, asks: self.asks(&request.method), reply, id }
    }

    /// The server's own requests, each under its method as id.
    fn asks(&self, answering: &str) -> Vec<Vec<u8>> {
        if !methods::is_list(answering) {
            return Vec::new();
        }
        let asks = self.spec().asks.iter();
        asks.map(|method| encode_request(&Id::from(*method), method, None::<&()>)).collect()
    }

    fn reply(
        &self,
        stage: Stage,
        via: Via<'_>,
        message: &Message<'_>,
        say: impl FnOnce(Answer) -> Reply,
    ) -> (Stage, Reply) {
        let mut action = self.answer(stage, via, message);
        let alone = matches!(stage, Stage::Legacy(_)) && self.spec().batched;
        if let Some(answer) = action.answer.as_mut().filter(|answer| alone && answer.status == 200)
        {
            answer.body = [b"[", answer.body.as_slice(), b"]"].concat();
        }
        (action.stage, action.answer.map_or(Reply::Nothing, say))
    }

    /// All answers in one array, when the slowest is there; a request that goes wrong in any other
    /// way than with an answer takes the whole batch with it.
    fn plan_batch(
        &self,
        stage: Stage,
        via: Via<'_>,
        messages: Vec<Result<Message<'_>, ParseError>>,
    ) -> Plan {
        let mut whole = Plan::nothing(stage);
        let mut bodies = Vec::new();
        for message in messages {
            let part = self.plan(whole.stage, via, message.map(Incoming::Single));
            whole.stage = part.stage;
            whole.delay = whole.delay.max(part.delay);
            match part.reply {
                Reply::Nothing => {}
                Reply::Send(answer) => bodies.push(answer.body),
                other => return Plan { reply: other, ..whole },
            }
        }
        if !bodies.is_empty() {
            let mut body = bodies.join(&b',');
            body.insert(0, b'[');
            body.push(b']');
            whole.reply = Reply::Send(Answer { status: 200, body });
        }
        whole
    }
}

fn faulty(fault: Fault, via: Via<'_>, request: &Request<'_>) -> Reply {
    let rpc = |error: &RpcError| {
        Reply::Send(Answer { status: 200, body: encode_error(Some(&request.id), error) })
    };
    match (fault, via) {
        (Fault::Rpc(error), _) => rpc(&error),
        (Fault::Status(status), Via::Http(_) | Via::Events(_)) => Reply::Raw(
            Raw::new("text/plain", format!("status {status}, on purpose\n")).status(status),
        ),
        (Fault::Status(status), Via::Stdio) => {
            let message = format!("status {status}, on purpose");
            rpc(&RpcError::new(codes::INTERNAL_ERROR, message))
        }
        (Fault::Raw(raw), _) => Reply::Raw(raw),
        (Fault::Hang, _) => Reply::Hang,
        (Fault::Close | Fault::CutShort, _) => Reply::Close,
    }
}

//! A session with a coordinator that the test plays, over a real connection.

use quinn::ConnectionError;
use windlass_protocol::job::Epoch;

use super::*;
use crate::link_kit::{Link, in_time};

const CONN: ConnId = ConnId(9);

fn draining() -> AgentMessage {
    AgentMessage::Draining
}

/// A session and the coordinator's end of it, whose control stream is there once something was said.
async fn open(link: &mut Link) -> (Session, mpsc::Receiver<Input>, Connection) {
    let (inputs, heard) = mpsc::channel(64);
    let session = link.dial.session(CONN, inputs).await.unwrap();
    (session, heard, link.accepted().await)
}

async fn code(connection: &Connection) -> Code {
    match in_time(connection.closed()).await {
        ConnectionError::ApplicationClosed(closed) => Code::from_number(closed.error_code.into_inner()),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_delivers_what_was_said_before_and_then_closes() {
    let mut link = Link::new();
    let (session, _heard, theirs) = open(&mut link).await;
    for _ in 0..100 {
        session.say(draining());
    }
    let ending = tokio::spawn(session.end(false));
    let (_send, recv) = in_time(theirs.accept_bi()).await.unwrap();
    let mut recv = FramedRecv::new(recv);
    let mut count = 0;
    while let Some(message) = in_time(recv.recv_message::<AgentMessage>()).await.unwrap() {
        assert_eq!(message, draining());
        count += 1;
    }
    assert_eq!(count, 100);
    assert_eq!(code(&theirs).await, Code::Done);
    in_time(ending).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_coordinator_says_is_heard_in_order_and_its_end_last_and_once() {
    let mut link = Link::new();
    let (session, mut heard, theirs) = open(&mut link).await;
    session.say(draining());
    let (send, _recv) = in_time(theirs.accept_bi()).await.unwrap();
    let mut send = FramedSend::new(send);
    for seq in [1, 2] {
        send.send_message(&CoordinatorMessage::BeatAck { seq, beat_ms: 5_000 }).await.unwrap();
    }
    for seq in [1, 2] {
        let said = Input::Message { conn: CONN, message: CoordinatorMessage::BeatAck { seq, beat_ms: 5_000 } };
        assert_eq!(in_time(heard.recv()).await, Some(said));
    }
    theirs.close(0_u32.into(), b"gone");
    assert_eq!(in_time(heard.recv()).await, Some(Input::ConnectionLost { conn: CONN }));
    assert_eq!(in_time(heard.recv()).await, None, "nobody speaks for this connection any more");
    assert!(session.connection.close_reason().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_speaks_nonsense_is_left() {
    let mut link = Link::new();
    let (session, mut heard, theirs) = open(&mut link).await;
    session.say(draining());
    let (mut send, _recv) = in_time(theirs.accept_bi()).await.unwrap();
    send.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(in_time(heard.recv()).await, Some(Input::ConnectionLost { conn: CONN }));
    assert_eq!(code(&theirs).await, Code::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_stream_that_does_not_move_is_given_up_without_waiting_for_it() {
    let mut link = Link::new();
    let (ours, theirs) = link.pair().await;
    // Nobody takes from the queue: as if the peer read nothing.
    let (outbox, _queue) = mpsc::channel(2);
    let session = Session { conn: CONN, connection: ours, outbox };
    session.say(draining());
    session.say(draining());
    assert!(session.connection.close_reason().is_none(), "the queue has room for these");
    session.say(draining());
    assert_eq!(code(&theirs).await, Code::Canceled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_found_does_not_keep_from_the_next_one() {
    let mut link = Link::new();
    link.dial.servers.insert(0, "no address at all".to_owned());
    let (session, _heard, _theirs) = open(&mut link).await;
    assert_eq!(session.conn, CONN);
    link.dial.servers.truncate(1);
    let (inputs, _heard) = mpsc::channel(1);
    let nowhere = link.dial.session(CONN, inputs).await;
    assert!(matches!(nowhere, Err(Fault::Address { .. })), "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_breaks_a_rule_is_refused_and_the_connection_stands() {
    let mut link = Link::new();
    let (session, mut heard, theirs) = open(&mut link).await;
    session.say(draining());
    let (send, recv) = in_time(theirs.accept_bi()).await.unwrap();
    let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
    assert_eq!(in_time(recv.recv_message::<AgentMessage>()).await.unwrap(), Some(draining()));
    let mut job = crate::link_kit::job();
    job.env.push(("MESSAGE".to_owned(), "a\0b".to_owned()));
    let attempt = job.attempt;
    send.send_message(&CoordinatorMessage::Offer { epoch: Epoch(3), job: Box::new(job) }).await.unwrap();
    match in_time(recv.recv_message::<AgentMessage>()).await.unwrap() {
        Some(AgentMessage::Refused { attempt: refused, epoch: Epoch(3), cause }) => {
            assert_eq!((refused, cause.kind), (attempt, CauseKind::Internal));
            assert!(cause.detail.contains("job.env"), "{}", cause.detail);
        }
        other => panic!("{other:?}"),
    }
    send.send_message(&CoordinatorMessage::BeatAck { seq: 1, beat_ms: 5_000 }).await.unwrap();
    let said = Input::Message { conn: CONN, message: CoordinatorMessage::BeatAck { seq: 1, beat_ms: 5_000 } };
    assert_eq!(in_time(heard.recv()).await, Some(said), "nothing was heard of the offer, and what comes next is");
    assert!(session.connection.close_reason().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_message_that_breaks_a_rule_ends_its_connection() {
    let mut link = Link::new();
    let (session, mut heard, theirs) = open(&mut link).await;
    session.say(draining());
    let (send, _recv) = in_time(theirs.accept_bi()).await.unwrap();
    let mut send = FramedSend::new(send);
    let attempt = crate::link_kit::job().attempt;
    send.send_message(&CoordinatorMessage::Stop { attempt, epoch: Epoch(0) }).await.unwrap();
    assert_eq!(in_time(heard.recv()).await, Some(Input::ConnectionLost { conn: CONN }));
}

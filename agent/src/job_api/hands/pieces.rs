//! Pieces of an open file: some are asked for, or are on their way to the disk, while another is dealt with.
//!
//! The program does one thing after the other and answers in that order, so several questions may stand. All that stand are of
//! one file and of one kind; whatever else is asked hears them to their end first.

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use windlass_hands::wire::{self, Answer, Op};
use windlass_protocol::limits::{HANDS_AHEAD, HANDS_ANSWER_MAX_BYTES, HANDS_CHUNK_BYTES};

use super::{Hands, HandsError, length, pay, receive, refused, shown};

/// What was asked and not heard yet.
#[derive(Debug, Default)]
pub(super) enum Standing {
    #[default]
    Nothing,
    /// Pieces of a file.
    Reads {
        handle: u32,
        count: usize,
        /// How many may stand: one until a whole piece came, for most files have no more.
        most: usize,
    },
    /// Pieces that are written to a file, which people know by this name.
    Writes { handle: u32, count: usize, what: String },
}

impl Hands {
    /// The next bytes of an open file; none is its end. More are asked for ahead.
    pub(in crate::job_api) async fn read_some<P: AsRef<[u8]> + ?Sized>(
        &mut self,
        handle: u32,
        path: &P,
    ) -> Result<Bytes, HandsError> {
        let (mut standing, most) = match self.standing {
            Standing::Reads { handle: of, count, most } if of == handle => (count, most),
            Standing::Nothing | Standing::Reads { .. } | Standing::Writes { .. } => {
                self.hear_all().await?;
                (0, 1)
            }
        };
        let question = Op::Read { handle }.encode()?;
        while standing < most {
            self.stream.write_all(&question).await.map_err(HandsError::Gone)?;
            standing += 1;
        }
        // One that finds no room is heard, too.
        self.standing = Standing::Reads { handle, count: standing - 1, most };
        let frame = self.hear_frame().await?;
        if frame.len() >= HANDS_CHUNK_BYTES {
            self.standing = Standing::Reads { handle, count: standing - 1, most: HANDS_AHEAD };
        }
        if let Some(at) = wire::piece(&frame)? {
            return Ok(Bytes::from(frame).split_off(at));
        }
        let answer = Answer::decode(&frame)?;
        // The others say the same.
        self.hear_all().await?;
        Err(refused(answer, || shown(path)))
    }

    /// Writes all of this to an open file. That a piece could not be written is said with one of the next, or when the file
    /// is closed: whoever has closed it without an error has written all of it.
    pub(in crate::job_api) async fn put<P: AsRef<[u8]> + ?Sized>(
        &mut self,
        handle: u32,
        path: &P,
        bytes: &[u8],
    ) -> Result<(), HandsError> {
        for bytes in bytes.chunks(HANDS_CHUNK_BYTES) {
            if !matches!(self.standing, Standing::Writes { handle: of, .. } if of == handle) {
                self.hear_all().await?;
                self.standing = Standing::Writes { handle, count: 0, what: shown(path) };
            }
            if self.standing.count() >= HANDS_AHEAD {
                self.hear_written().await?;
            }
            let head = wire::put_head(handle, bytes.len())?;
            self.stream.write_all(&head).await.map_err(HandsError::Gone)?;
            self.stream.write_all(bytes).await.map_err(HandsError::Gone)?;
            if let Standing::Writes { count, .. } = &mut self.standing {
                *count += 1;
            }
        }
        Ok(())
    }

    /// Hears how the first of the pieces that are being written came out. Where it failed the others are passed over: what
    /// came of them says nothing more.
    async fn hear_written(&mut self) -> Result<(), HandsError> {
        let Standing::Writes { count, .. } = &mut self.standing else { return Ok(()) };
        // One that finds no room is heard, too.
        *count -= 1;
        let answer = self.hear().await?;
        if answer != Answer::Done {
            let what = self.standing.what();
            self.pass_over().await?;
            return Err(refused(answer, || what));
        }
        Ok(())
    }

    /// Hears all that stands: pieces that nobody wants any more are passed over, those that are being written are asked for.
    pub(super) async fn hear_all(&mut self) -> Result<(), HandsError> {
        if matches!(self.standing, Standing::Writes { .. }) {
            while self.standing.count() > 0 {
                self.hear_written().await?;
            }
        }
        self.pass_over().await
    }

    /// Passes over all that stands, whatever it says. Nothing of it is held.
    pub(super) async fn pass_over(&mut self) -> Result<(), HandsError> {
        for _ in 0..std::mem::take(&mut self.standing).count() {
            let length = length(&mut self.stream, HANDS_ANSWER_MAX_BYTES).await? as u64;
            let mut frame = (&mut self.stream).take(length);
            tokio::io::copy(&mut frame, &mut tokio::io::sink()).await.map_err(HandsError::Gone)?;
        }
        Ok(())
    }

    /// The next answer.
    pub(super) async fn hear(&mut self) -> Result<Answer, HandsError> {
        Ok(Answer::decode(&self.hear_frame().await?)?)
    }

    async fn hear_frame(&mut self) -> Result<Vec<u8>, HandsError> {
        let length = length(&mut self.stream, HANDS_ANSWER_MAX_BYTES).await?;
        // Its bytes, and what is made of them.
        pay(&mut self.stream, &mut self.share, 2 * length, length).await?;
        let frame = receive(&mut self.stream, length).await?;
        self.share.shrink(2 * length);
        Ok(frame)
    }
}

impl Standing {
    const fn count(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Reads { count, .. } | Self::Writes { count, .. } => *count,
        }
    }

    fn what(&self) -> String {
        match self {
            Self::Nothing | Self::Reads { .. } => String::new(),
            Self::Writes { what, .. } => what.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use tokio::net::UnixStream;
    use tokio::task::JoinHandle;
    use windlass_hands::wire::Hello;
    use windlass_protocol::limits::JOB_CALLS_MAX_BYTES;

    use super::*;
    use crate::job_api::account::Account;

    const READ: &str = "Op(7)";
    const PUT: &str = "Op(9)";
    const CLOSE: &str = "Op(10)";
    const RENAME: &str = "Op(12)";
    const NO_SPACE: i32 = 28;

    /// A program that answers so, given how often it was asked the same; in the end it tells what it was asked.
    async fn greeted(answer: impl Fn(&str, usize) -> Answer + Send + 'static) -> (Hands, JoinHandle<Vec<String>>) {
        let frames = move |op: &Op, before: usize| frame(&answer(&format!("{op:?}"), before));
        greeted_by(&Account::default(), frames).await
    }

    /// What a program sends for an answer.
    #[derive(Debug, Clone)]
    enum Sent {
        These(Vec<u8>),
        /// Before it ends.
        Last(Vec<u8>),
    }

    /// The same of one that sends anything.
    async fn greeted_by(
        account: &Account,
        answer: impl Fn(&Op, usize) -> Sent + Send + 'static,
    ) -> (Hands, JoinHandle<Vec<String>>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let hello =
            Hello { call: [1; 16], streams: 0, arguments: vec![], directory: b"/".to_vec(), environment: vec![] };
        let program = tokio::spawn(async move {
            theirs.write_all(&hello.encode().unwrap()).await.unwrap();
            let mut asked: Vec<String> = Vec::new();
            while let Ok(length) = length(&mut theirs, usize::MAX).await {
                let op = Op::decode(&receive(&mut theirs, length).await.unwrap()).unwrap();
                let shown = format!("{op:?}");
                let answer = answer(&op, asked.iter().filter(|before| **before == shown).count());
                asked.push(shown);
                let (Sent::These(bytes) | Sent::Last(bytes)) = &answer;
                // Who asked may be gone.
                if theirs.write_all(bytes).await.is_err() || matches!(answer, Sent::Last(_)) {
                    break;
                }
            }
            asked
        });
        (Hands::greet(ours, account).await.unwrap(), program)
    }

    fn frame(answer: &Answer) -> Sent {
        Sent::These(answer.encode().unwrap())
    }

    fn count(asked: &[String], op: &str) -> usize {
        asked.iter().filter(|asked| *asked == op).count()
    }

    fn is_full(written: &Result<(), HandsError>, of: &str) -> bool {
        matches!(written, Err(HandsError::Refused { what, source })
            if what == of && source.kind() == io::ErrorKind::StorageFull)
    }

    #[tokio::test]
    async fn a_piece_that_could_not_be_written_fails_its_file_at_the_latest_when_that_is_closed_and_nothing_else() {
        let (mut hands, program) = greeted(|op, before| match op {
            PUT if before > 0 => Answer::Failed(NO_SPACE),
            _ => Answer::Done,
        })
        .await;
        for _ in 0..2 {
            hands.put(1, "a", &[7; 100]).await.unwrap();
        }
        let closed = hands.close(1).await;
        assert!(is_full(&closed, "a"), "{closed:?}");
        hands.rename("b", "c").await.unwrap();
        drop(hands);
        assert_eq!(program.await.unwrap(), [PUT, PUT, CLOSE, RENAME]);
    }

    #[tokio::test]
    async fn whoever_goes_on_writing_hears_that_it_is_in_vain_and_the_other_pieces_say_nothing_more() {
        let (mut hands, program) = greeted(|op, before| match op {
            PUT if before > 0 => Answer::Failed(NO_SPACE),
            _ => Answer::Done,
        })
        .await;
        let written = hands.put(1, "a", &vec![7; 10 * HANDS_CHUNK_BYTES]).await;
        assert!(is_full(&written, "a"), "{written:?}");
        hands.close(1).await.unwrap();
        drop(hands);
        let asked = program.await.unwrap();
        assert_eq!((count(&asked, PUT), count(&asked, CLOSE)), (HANDS_AHEAD + 1, 1), "{asked:?}");
    }

    #[tokio::test]
    async fn pieces_are_asked_for_ahead_of_a_file_that_has_many_and_those_that_nobody_wants_are_passed_over() {
        let (mut hands, program) = greeted(|op, before| match op {
            READ => Answer::Bytes(vec![u8::try_from(before).unwrap(); HANDS_CHUNK_BYTES]),
            _ => Answer::Done,
        })
        .await;
        for nth in 0..3 {
            assert_eq!(hands.read_some(1, "a").await.unwrap(), vec![nth; HANDS_CHUNK_BYTES]);
        }
        hands.rename("b", "c").await.unwrap();
        drop(hands);
        let asked = program.await.unwrap();
        assert_eq!(
            (count(&asked, READ), asked.last().unwrap().as_str()),
            (1 + 2 + HANDS_AHEAD - 1, RENAME),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn a_file_of_one_piece_is_asked_for_once_and_once_for_its_end() {
        let (mut hands, program) = greeted(|op, before| match op {
            READ => Answer::Bytes(vec![7; if before == 0 { 100 } else { 0 }]),
            _ => Answer::Done,
        })
        .await;
        assert_eq!(hands.read_some(1, "a").await.unwrap().len(), 100);
        assert!(hands.read_some(1, "a").await.unwrap().is_empty());
        hands.close(1).await.unwrap();
        drop(hands);
        assert_eq!(program.await.unwrap(), [READ, READ, CLOSE]);
    }

    #[tokio::test]
    async fn pieces_that_were_asked_for_ahead_are_never_another_file_s() {
        let (mut hands, program) = greeted_by(&Account::default(), |op, _| match op {
            Op::Read { handle } => frame(&Answer::Bytes(vec![u8::try_from(*handle).unwrap(); HANDS_CHUNK_BYTES])),
            _ => frame(&Answer::Done),
        })
        .await;
        for handle in [1_u8, 1, 1, 2, 2, 1, 2] {
            let piece = hands.read_some(u32::from(handle), "a").await.unwrap();
            assert!(piece.len() == HANDS_CHUNK_BYTES && piece.iter().all(|byte| *byte == handle), "of {handle}");
        }
        // A file that was begun anew is asked for one piece at first, as any.
        hands.put(3, "b", b"b").await.unwrap();
        hands.close(3).await.unwrap();
        drop(hands);
        let asked = program.await.unwrap();
        assert_eq!(&asked[asked.len() - 2..], [PUT, CLOSE]);
        assert_eq!(count(&asked, READ), (1 + 4 + 1) + (1 + 4) + 1 + 1, "{asked:?}");
    }

    #[tokio::test]
    async fn a_piece_that_could_not_be_written_is_told_of_its_own_file_and_the_next_file_is_written_whole() {
        let (mut hands, program) = greeted_by(&Account::default(), |op, _| match op {
            Op::Put { handle: 1, bytes } if bytes == b"bad" => frame(&Answer::Failed(NO_SPACE)),
            _ => frame(&Answer::Done),
        })
        .await;
        hands.put(1, "a", b"good").await.unwrap();
        hands.put(1, "a", b"bad").await.unwrap();
        let written = hands.put(2, "b", b"good").await;
        assert!(is_full(&written, "a"), "{written:?}");
        hands.put(2, "b", b"good").await.unwrap();
        hands.close(2).await.unwrap();
        hands.put(1, "a", b"bad").await.unwrap();
        let renamed = hands.rename("a", "c").await;
        assert!(is_full(&renamed, "a"), "a file gets no name before all of it is heard: {renamed:?}");
        drop(hands);
        assert_eq!(program.await.unwrap(), [PUT, PUT, PUT, CLOSE, PUT]);
    }

    #[tokio::test]
    async fn whoever_gives_a_file_up_is_not_told_how_its_last_pieces_were_written() {
        let (mut hands, program) = greeted(|op, _| match op {
            PUT => Answer::Failed(NO_SPACE),
            _ => Answer::Done,
        })
        .await;
        for _ in 0..HANDS_AHEAD {
            hands.put(1, "a", b"a").await.unwrap();
        }
        hands.abandon(1).await.unwrap();
        hands.rename("b", "c").await.unwrap();
        drop(hands);
        let asked = program.await.unwrap();
        assert_eq!(&asked[HANDS_AHEAD..], [CLOSE, RENAME]);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_told_by_its_name_and_what_was_asked_ahead_of_it_says_nothing_more() {
        let (mut hands, program) = greeted(|op, before| match op {
            READ if before > 0 => Answer::Failed(5),
            READ => Answer::Bytes(vec![7; HANDS_CHUNK_BYTES]),
            _ => Answer::Done,
        })
        .await;
        hands.read_some(1, "a").await.unwrap();
        let read = hands.read_some(1, "a").await;
        assert!(matches!(&read, Err(HandsError::Refused { what, .. }) if what == "a"), "{read:?}");
        hands.close(1).await.unwrap();
        drop(hands);
        let asked = program.await.unwrap();
        assert_eq!((count(&asked, READ), count(&asked, CLOSE)), (1 + HANDS_AHEAD, 1), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_is_paid_for_while_it_is_taken_in_and_given_back_and_one_that_finds_no_room_is_heard_all_the_same()
    {
        let account = Account::default();
        let (mut hands, program) = greeted_by(&account, |op, before| match op {
            Op::Read { .. } => frame(&Answer::Bytes(vec![u8::try_from(before % 251).unwrap(); HANDS_CHUNK_BYTES])),
            _ => frame(&Answer::Done),
        })
        .await;
        // More than the account has passes through it.
        let many = JOB_CALLS_MAX_BYTES / HANDS_CHUNK_BYTES;
        for nth in 0..many {
            let piece = hands.read_some(1, "a").await.unwrap();
            assert_eq!(usize::from(piece[0]), nth % 251);
        }
        let mut others = account.share();
        others.grow(JOB_CALLS_MAX_BYTES - 2 * HANDS_CHUNK_BYTES).await.unwrap();
        let read = hands.read_some(1, "a").await;
        assert!(matches!(read, Err(HandsError::NoRoom)), "it is held twice, with its head: {read:?}");
        others.shrink(HANDS_CHUNK_BYTES);
        let piece = hands.read_some(1, "a").await.unwrap();
        assert_eq!(usize::from(piece[0]), (many + 1) % 251, "the one that found no room was passed over");
        hands.rename("b", "c").await.unwrap();
        others.grow(HANDS_CHUNK_BYTES).await.unwrap();
        for answer in [hands.put(2, "d", b"d").await, hands.rename("b", "c").await] {
            answer.unwrap();
        }
        // As is how a piece was written, where there is no room even for that.
        others.grow(2 * HANDS_CHUNK_BYTES).await.unwrap();
        hands.put(2, "d", b"d").await.unwrap();
        assert!(matches!(hands.rename("b", "c").await, Err(HandsError::NoRoom)));
        others.shrink(2 * HANDS_CHUNK_BYTES);
        let heard = tokio::time::timeout(Duration::from_secs(60), hands.rename("b", "c")).await;
        heard.expect("nothing stands any more").unwrap();
        drop(hands);
        others.grow(2 * HANDS_CHUNK_BYTES).await.unwrap();
        assert_eq!(program.await.unwrap().last().unwrap(), RENAME);
    }

    /// A program that sends this for the piece at `nth` place, whole pieces for others, and for whatever else that it is done.
    async fn with(nth: usize, sent: &Sent) -> Hands {
        let sent = sent.clone();
        let answers = move |op: &Op, before: usize| match op {
            Op::Read { .. } | Op::Put { .. } if before == nth => sent.clone(),
            Op::Read { .. } => frame(&Answer::Bytes(vec![7; HANDS_CHUNK_BYTES])),
            _ => frame(&Answer::Done),
        };
        greeted_by(&Account::default(), answers).await.0
    }

    /// What comes of this in the place of a second piece: to who reads, to who writes, and to who closes what he wrote.
    async fn heard(sent: Sent) -> [Result<(), HandsError>; 3] {
        let (mut reads, mut writes, mut closes) = (with(1, &sent).await, with(1, &sent).await, with(1, &sent).await);
        reads.read_some(1, "a").await.unwrap();
        for hands in [&mut writes, &mut closes] {
            hands.put(1, "a", b"one").await.unwrap();
            hands.put(1, "a", b"two").await.unwrap();
        }
        let writes = writes.put(1, "a", &vec![7; HANDS_AHEAD * HANDS_CHUNK_BYTES]).await;
        [reads.read_some(1, "a").await.map(drop), writes, closes.close(1).await]
    }

    /// What comes of this to who asks something else, after he read ahead.
    async fn passed(sent: Sent) -> Result<(), HandsError> {
        let mut hands = with(2, &sent).await;
        for _ in 0..2 {
            hands.read_some(1, "a").await.unwrap();
        }
        hands.rename("b", "c").await
    }

    #[tokio::test]
    async fn an_answer_that_is_none_ends_the_command_unless_nobody_wants_to_know_it() {
        let too_long = u32::try_from(HANDS_ANSWER_MAX_BYTES + 1).unwrap().to_le_bytes().to_vec();
        for came in heard(Sent::These(too_long.clone())).await {
            assert!(matches!(came, Err(HandsError::Bad(wire::Bad::TooLong))), "{came:?}");
        }
        let came = passed(Sent::Last(too_long)).await;
        assert!(matches!(came, Err(HandsError::Bad(wire::Bad::TooLong))), "it is not waited for: {came:?}");
        let unknown = Sent::These([&1_u32.to_le_bytes()[..], &[99]].concat());
        for came in heard(unknown.clone()).await {
            assert!(matches!(came, Err(HandsError::Bad(wire::Bad::Unknown))), "{came:?}");
        }
        passed(unknown).await.unwrap();
        for came in heard(frame(&Answer::Handle(7))).await {
            assert!(matches!(came, Err(HandsError::Confused)), "{came:?}");
        }
        passed(frame(&Answer::Failed(NO_SPACE))).await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_ends_halfway_is_gone_to_who_reads_writes_closes_or_asks() {
        let torn = Answer::Bytes(vec![7; 9]).encode().unwrap()[..8].to_vec();
        for bytes in [Vec::new(), torn] {
            for came in heard(Sent::Last(bytes.clone())).await {
                assert!(matches!(came, Err(HandsError::Gone(_))), "{came:?}");
            }
            let came = passed(Sent::Last(bytes)).await;
            assert!(matches!(came, Err(HandsError::Gone(_))), "{came:?}");
        }
    }
}

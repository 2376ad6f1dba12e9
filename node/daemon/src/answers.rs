//! Answers that wait until the view shows what they tell of.
//!
//! Whoever hears that its write is committed, or that this node has pulled, looks at the view next, on another thread:
//! told earlier it may still find the State before (seen as "no such bucket" right after "created", protocol.md L5).

use tokio::sync::oneshot;

/// Answers of one batch of the core's inputs.
#[derive(Default)]
pub(crate) struct Answers(Vec<Box<dyn FnOnce() + Send>>);

impl Answers {
    /// Keeps an answer back. A caller that went away by then wants none.
    pub(crate) fn hold<T: Send + 'static>(&mut self, to: oneshot::Sender<T>, answer: T) {
        self.0.push(Box::new(move || drop(to.send(answer))));
    }

    /// Gives all, now that the view is out.
    pub(crate) fn give(&mut self) {
        self.0.drain(..).for_each(|answer| answer());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_before_the_view_is_out() {
        let mut answers = Answers::default();
        let (to, mut answer) = oneshot::channel();
        let (gone, _) = oneshot::channel();
        answers.hold(to, true);
        answers.hold(gone, 7);
        assert!(answer.try_recv().is_err(), "told too early");
        answers.give();
        assert_eq!(answer.try_recv(), Ok(true));
    }
}

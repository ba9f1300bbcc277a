use super::{
    Commands, EmitRequest, Error,
    emit::audit_refusal,
    sent::{Kind, Sent},
};
use crate::auth::Caller;
use crate::message::Receipt;

impl Commands {
    /// Sends several events, in order; those that are to be stored, one after the other, are stored together. One that is refused, here or
    /// before, stops no other. Acknowledgements are awaited when all are sent.
    pub async fn emit_batch(
        &self,
        caller: &Caller,
        requests: Vec<Result<EmitRequest, Error>>,
    ) -> Vec<Result<Receipt, Error>> {
        let asking = requests.iter().flatten().filter(|request| request.emit.ack.is_some()).count();
        let (mut all, mut some_are_placed) = (Vec::with_capacity(requests.len()), false);
        for request in requests {
            let sent = match request {
                Ok(mut request) => {
                    request.emit.alone = false;
                    request.emit.ack = request.emit.ack.map(|ack| ack.one_of(asking).into());
                    let kind = Kind::of(&request.emit);
                    if !kind.is_stored && std::mem::take(&mut some_are_placed) {
                        all = settled(all).await;
                    }
                    some_are_placed |= kind.is_stored;
                    Sent::run(kind, |sent| self.emit_telling(caller, request, sent)).await
                }
                Err(error) => {
                    audit_refusal(&caller.name, None, None, &error);
                    Sent::Answered(Err(error))
                }
            };
            all.push(sent);
        }
        let mut results = Vec::with_capacity(all.len());
        for sent in all {
            results.push(sent.answer().await);
        }
        results
    }
}

/// What came before, once it is sent.
async fn settled<F: Future<Output = Result<Receipt, Error>>>(all: Vec<Sent<F>>) -> Vec<Sent<F>> {
    let mut settled = Vec::with_capacity(all.capacity());
    for sent in all {
        settled.push(sent.settled().await);
    }
    settled
}

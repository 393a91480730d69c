class Profiles:
    async def answer(self, name, query):
        raise NotImplementedError
